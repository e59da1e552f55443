"""What a `cell_fault` alert says: meaning, what to check in which order, reasons in engineering units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telltale.failures.text import FailureText, Words

REASONS: Final = 5

CELL_FAULT: Final = FailureText(
    "cell_fault",
    True,
    Words(
        "单体（最小并联单元）正在脱离电池组",
        "静置时该单体电压相对电池组中位数偏低；若逐日下降且邻近单体不随之变化，符合内部微短路（自放电增大）。",
        (
            "高压持证人员操作；先读取并保存故障码与单体电压快照",
            "充满电后静置至少 2 小时，用诊断仪复测该单体与中位数之差",
            "再静置 24 小时复测：若差值继续扩大，漏电成立；若不变，可能是采样误差或容量偏低",
            "检查该单体采样线、接插件和采集板，排除测量问题",
            "执行一次均衡，三天后复测静置压差",
            "仍在下降时才更换：按该电池组设计的维修单元更换，单体不是备件",
        ),
        (
            "诊断仪与高压防护用品",
            "可静置车辆 24 小时的充电工位",
            "均衡设备",
            "该电池组的维修单元（见本报警）",
        ),
    ),
    Words(
        "A cell (minimum parallel unit) is leaving its pack",
        "At rest this cell stands below the pack's median. If it falls day by day while its neighbours do "
        "not, that is how an internal leak (raised self-discharge) looks.",
        (
            "High-voltage qualified staff only; first keep trouble codes and a snapshot of all cells",
            "Charge to full, rest for at least 2 hours, measure this cell against the median again",
            "Rest 24 hours more and measure again: a growing gap is a leak; a constant one is a sensor or a "
            "cell of less capacity",
            "Check this cell's sense wire, connector and measuring board: rule out the measurement",
            "Balance the pack once and measure the gap at rest three days later",
            "Only if it still falls, exchange: the service unit of this pack design, a cell is no spare part",
        ),
        (
            "diagnostic tool and high-voltage protection",
            "a charging bay where the car can rest for 24 hours",
            "balancing equipment",
            "the service unit of this pack (named in this alert)",
        ),
    ),
)
WEAK_TITLE: Final = {"zh": "单体电压偏低但稳定，继续观察", "en": "A cell is low but stable: keep watching"}


@dataclass(frozen=True, slots=True)
class ServiceUnit:
    """What is exchanged when a cell of this pack design has failed."""

    zh: str
    en: str
    cells: int = 0  # per module where modules are exchanged; 0: the pack goes to a depot

    def of(self, cell: int) -> dict[str, str]:
        """Return the unit that holds this cell (from 1), in both languages."""
        if not self.cells:
            return {"zh": self.zh, "en": self.en}
        number = (cell - 1) // self.cells + 1
        return {"zh": f"{self.zh} {number}", "en": f"{self.en} {number}"}


DEPOT: Final = ServiceUnit("电池包：返厂维修", "pack: depot repair")
SERVICE_UNITS: Final[Mapping[str, ServiceUnit]] = {
    "P96-NCM": ServiceUnit("模组（12 串）", "module (12 cells in series)", 12),
    "P88-NCM": ServiceUnit("模组（11 串）", "module (11 cells in series)", 11),
    "P104-LFP": DEPOT,  # cell to pack: no modules
}

# Feature → unit and what it says; {v} is the value.
PHRASES: Final[Mapping[str, tuple[str, str, str]]] = {
    "deviation_mv": (
        "mV",
        "静置时与中位数相差 {v:+.1f} mV",
        "stands {v:+.1f} mV from the pack's median at rest",
    ),
    "deviation_z": (
        "",
        "偏差为电池组离散度的 {v:+.1f} 倍",
        "its deviation is {v:+.1f} times the pack's spread",
    ),
    "trend_mv_day": (
        "mV/d",
        "近 10 天静置偏差变化 {v:+.2f} mV/天",
        "moved {v:+.2f} mV a day over the last 10 days",
    ),
    "trend_z": (
        "",
        "变化速度为其他单体离散度的 {v:+.1f} 倍",
        "its trend is {v:+.1f} times the spread of the other cells'",
    ),
    "trend_lead_mv_day": (
        "mV/d",
        "比下降第二快的单体快 {v:.2f} mV/天",
        "falls {v:.2f} mV a day faster than the next fastest cell",
    ),
    "trend_alone_mv_day": (
        "mV/d",
        "相对邻近单体变化 {v:+.2f} mV/天",
        "moved {v:+.2f} mV a day against its neighbours",
    ),
    "upheld_mv_day": (
        "mV/d",
        "SOC 升、降的日对中均成立的变化 {v:+.2f} mV/天",
        "moved {v:+.2f} mV a day in pairs of days with rising and with falling SOC alike",
    ),
    "long_upheld_mv_day": (
        "mV/d",
        "28 天内 SOC 升、降的日对中均成立的变化 {v:+.2f} mV/天",
        "over 28 days moved {v:+.2f} mV a day with rising and with falling SOC alike",
    ),
    "falling_share": (
        "",
        "同 SOC 日对中 {v:.0%} 为下降",
        "lower on the later day in {v:.0%} of day pairs at the same SOC",
    ),
    "fall_mv": ("mV", "近 10 天累计下降 {v:.1f} mV", "fell {v:.1f} mV within the last 10 days"),
    "long_trend_mv_day": ("mV/d", "近 28 天变化 {v:+.2f} mV/天", "moved {v:+.2f} mV a day over 28 days"),
    "long_trend_z": (
        "",
        "28 天趋势为离散度的 {v:+.1f} 倍",
        "its 28-day trend is {v:+.1f} times the other cells' spread",
    ),
    "long_trend_lead_mv_day": (
        "mV/d",
        "28 天内比下降第二快的单体快 {v:.2f} mV/天",
        "over 28 days falls {v:.2f} mV a day faster than the next cell",
    ),
    "long_trend_alone_mv_day": (
        "mV/d",
        "28 天内相对邻近单体变化 {v:+.2f} mV/天",
        "over 28 days moved {v:+.2f} mV a day against its neighbours",
    ),
    "long_falling_share": (
        "",
        "28 天同 SOC 日对中 {v:.0%} 为下降",
        "over 28 days lower in {v:.0%} of day pairs at the same SOC",
    ),
    "long_fall_mv": ("mV", "近 28 天累计下降 {v:.1f} mV", "fell {v:.1f} mV within 28 days"),
    "residual_mv": ("mV", "趋势线外散布 {v:.1f} mV", "scatters {v:.1f} mV around its trend"),
    "deviation_soc_pct": (
        "%",
        "相当于荷电状态相差 {v:+.2f} %",
        "that is {v:+.2f} % of charge from the others",
    ),
    "trend_soc_pct_day": ("%/d", "相当于每天 {v:+.3f} % 荷电量", "that is {v:+.3f} % of charge a day"),
    "pack_trend_spread_mv_day": (
        "mV/d",
        "其他单体趋势离散仅 {v:.2f} mV/天",
        "the other cells' trends spread by {v:.2f} mV a day",
    ),
    "pack_level_spread_mv": (
        "mV",
        "电池组静置离散 {v:.1f} mV",
        "the pack's cells spread by {v:.1f} mV at rest",
    ),
    "slope_mv_pct": (
        "mV/%",
        "此处电压曲线斜率 {v:.1f} mV/%",
        "the pack's curve rises {v:.1f} mV per percent of charge here",
    ),
}


def top_reasons(
    names: Sequence[str], values: Mapping[str, float], contributions: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the features that raised this cell's rank most, largest first, in words with their values."""
    ordered = sorted(zip(contributions, names, strict=True), key=lambda pair: -pair[0])
    told = [(share, name) for share, name in ordered if share > 0 and values[name] == values[name]]
    return [_reason(name, values[name], share) for share, name in told[:REASONS]]


def _reason(name: str, value: float, share: float) -> dict[str, Any]:
    unit, zh, en = PHRASES[name]
    return {
        "feature": name,
        "value": round(value, 4),
        "unit": unit,
        "log_odds": round(float(share), 3),
        "zh": zh.format(v=value),
        "en": en.format(v=value),
    }
