"""What the safety rules' alerts mean and what to check, by detector."""

from __future__ import annotations

from typing import Final

from telltale.failures.text import FailureText, Words

THERMAL_EVENT: Final = FailureText(
    "thermal_event",
    True,
    Words(
        "动力电池热事件",
        "车辆报警与物理证据（温度、温升、电芯或总电压骤降、数据互相矛盾）同时出现，电池可能正在失控。",
        (
            "立即联系车主：停车、下车、远离车辆并报警；不要充电，不要驶入车库",
            "车辆隔离停放在室外空旷处，周围至少 15 米，持续观察 48 小时以上",
            "由高压持证人员穿戴防护用品后，在远处读取电池管理系统冻结帧和故障码",
            "核对本报警列出的温度与电芯电压，判断是真实温升还是传感器故障",
            "检查冷却液液位、泄漏、碰撞和涉水痕迹；未排除危险前不得开包",
        ),
        ("隔离停车位和热成像仪", "消防联络方式", "拖车（不得自行驾驶）", "厂家电池技术支持"),
    ),
    Words(
        "Thermal event in the traction battery",
        "The vehicle's alarm and physical evidence (heat, a step in temperature, a collapsing cell or pack, "
        "readings that contradict each other) came together: the battery may be running away.",
        (
            "Call the driver now: stop, get out, keep away, call the fire service; no charging, no garage",
            "Keep the vehicle outdoors with 15 m around it and watch it for at least 48 hours",
            "High-voltage personnel with protection: read freeze frame and trouble codes from a distance",
            "Compare the temperatures and cell voltages of this alert: true heating or a failed sensor?",
            "Look at coolant level, leaks, marks of impact and water; do not open the pack before it is safe",
        ),
        (
            "quarantine bay and thermal camera",
            "fire service contact",
            "recovery truck (do not drive)",
            "battery support line",
        ),
    ),
)
INSULATION: Final = FailureText(
    "insulation",
    True,
    Words(
        "高压绝缘下降",
        "绝缘电阻相对电池总电压低于限值（500 Ω/V 重要，100 Ω/V 紧急），此前该车的读数正常，存在触电风险。",
        (
            "提醒车主停用并停止充电；紧急级别用拖车",
            "高压持证人员按规程断开维修开关，等待放电并验电",
            "用绝缘测试仪分别测量高压正、负极对车身",
            "逐一断开空调压缩机、加热器、车载充电机、电机控制器、电池包后复测，定位支路",
            "检查充电口、高压线束和接插件是否进水、磨损；检查电池包冷却液泄漏",
        ),
        ("1000 V 绝缘测试仪", "高压防护用品", "充电口与高压线束密封件", "疑似支路的备件"),
    ),
    Words(
        "High-voltage insulation has dropped",
        "Insulation per volt of the pack is below its limit (500 Ω/V important, 100 Ω/V urgent) and was good "
        "before: danger of electric shock.",
        (
            "Ask the driver to stop using and charging the vehicle; if urgent, recover it",
            "High-voltage personnel: service disconnect, wait for discharge, prove it dead",
            "Measure high-voltage plus and minus against the body with an insulation tester",
            "Disconnect compressor, heater, on-board charger, inverter and pack one by one and measure again",
            "Look for water or wear at charge port, cables and connectors, and for coolant inside the pack",
        ),
        (
            "1000 V insulation tester",
            "high-voltage protective equipment",
            "seals for charge port and connectors",
            "parts for the suspected branch",
        ),
    ),
)
INSULATION_SENSOR: Final = FailureText(
    "insulation_sensor",
    True,
    Words(
        "绝缘读数不可信",
        "该车绝缘读数一直很低，从未出现过合理值，车辆自身也没有绝缘报警：更像是标度错误或监测仪故障。",
        (
            "下次进店时，在诊断仪上读取绝缘监测值，与平台数据比较（单位、比例）",
            "高压持证人员用绝缘测试仪实测一次，确认车辆确实绝缘良好",
            "实测偏低：按“高压绝缘下降”处理；实测正常：检查监测仪和终端标定、软件版本",
        ),
        ("诊断仪", "1000 V 绝缘测试仪"),
    ),
    Words(
        "Insulation reading is not credible",
        "The reading has always been low, never once plausible, and the vehicle itself does not complain: "
        "rather a wrong scale or a failed monitor than a fault.",
        (
            "At the next visit read the insulation monitor with a tester and compare unit and scale",
            "High-voltage personnel: measure once with an insulation tester to make sure that it is good",
            "If low: treat as dropped insulation. If good: check monitor, gateway scale, software",
        ),
        ("diagnostic tester", "1000 V insulation tester"),
    ),
)
CELL_OVERVOLTAGE: Final = FailureText(
    "cell_overvoltage",
    True,
    Words(
        "电芯过压",
        "电芯电压持续高于该化学体系能承受的范围，过充会析锂并可能引发热失控。",
        (
            "停止充电，不要再连接充电桩",
            "用诊断仪复核报警电芯及相邻电芯电压，与平台数据比较",
            "高压持证人员实测该电芯电压，区分真实过压与采样故障",
            "真实过压：检查充电截止、均衡与电流传感器；联系厂家评估模组或电池包",
        ),
        (
            "诊断仪",
            "万用表与高压防护用品",
            "采样线束或电池管理从板",
            "按该电池包设计的服务单元（模组或整包）",
        ),
    ),
    Words(
        "Cell over-voltage",
        "A cell stays above what its chemistry bears; overcharge plates lithium and can start a runaway.",
        (
            "Stop charging and do not plug in again",
            "Read the named cell and its neighbours with a tester and compare",
            "High-voltage personnel: measure the cell itself, true over-voltage or failed measurement?",
            "If true: check charge cut-off, balancing and current sensor; let the maker judge the pack",
        ),
        (
            "diagnostic tester",
            "meter and high-voltage protective equipment",
            "sense harness or cell monitoring board",
            "service unit of this pack design (module or pack)",
        ),
    ),
)
CELL_UNDERVOLTAGE: Final = FailureText(
    "cell_undervoltage",
    True,
    Words(
        "电芯欠压",
        "电芯电压持续低于该化学体系的下限，深度放电会损坏电芯；此时充电可能造成内部短路。",
        (
            "电芯低于 1.5 V 时不要充电，先联系厂家",
            "用诊断仪复核报警电芯和全包电芯电压、SOC",
            "高压持证人员实测该电芯，区分真实欠压、采样线和连接片故障",
            "全包偏低：检查长期停放、12 V 耗电；单个偏低：满充静置后复测、均衡，再评估更换服务单元",
        ),
        ("诊断仪", "万用表与高压防护用品", "均衡设备", "按该电池包设计的服务单元（模组或整包）"),
    ),
    Words(
        "Cell under-voltage",
        "A cell stays below the limit of its chemistry: deep discharge ruins it, and charging it then can "
        "grow an internal short.",
        (
            "Do not charge while a cell is below 1.5 V; ask the maker first",
            "Read the named cell, all cells and the state of charge with a tester",
            "High-voltage personnel: measure the cell: true, or a fault of sense wire or busbar?",
            "All low: long parking, 12 V drain. One low: charge, rest, measure, balance; only then exchange",
        ),
        (
            "diagnostic tester",
            "meter and high-voltage protective equipment",
            "balancer",
            "service unit of this pack design (module or pack)",
        ),
    ),
)
CELL_MEASUREMENT: Final = FailureText(
    "cell_measurement",
    True,
    Words(
        "电芯电压采样丢失",
        "电芯读数为 0 V 或不可能的值，而电池总电压说明该电芯仍在："
        "多为采样线、接插件或从板故障，管理系统看不到该电芯。",
        (
            "用诊断仪确认该电芯读数，并记录从板通信故障码",
            "高压持证人员检查采样接插件、熔断片和线束是否松动、腐蚀",
            "在采样端实测该电芯电压，确认电芯正常",
            "修复采样或更换从板，清码后满充静置复查",
        ),
        ("诊断仪", "采样线束与接插件", "电池管理从板", "高压防护用品"),
    ),
    Words(
        "Cell measurement lost",
        "A cell reads 0 V or what no cell can have, while the pack's voltage says the cell is there: "
        "mostly a sense wire, connector or monitoring board. The battery management does not see this cell.",
        (
            "Confirm the reading with a tester and note communication trouble codes of the monitoring boards",
            "High-voltage personnel: check sense connector, fuse and harness for looseness and corrosion",
            "Measure the cell at the sense connector to make sure that the cell itself is good",
            "Repair the sensing or exchange the board, clear, charge full, rest and look again",
        ),
        (
            "diagnostic tester",
            "sense harness and connector",
            "cell monitoring board",
            "high-voltage protective equipment",
        ),
    ),
)
DRIVE_LOST: Final = FailureText(
    "drive_lost",
    True,
    Words(
        "行驶中失去动力",
        "车辆仍在行驶，但高压消失，或踩下踏板时所有电机关闭。",
        (
            "联系车主，确认已停在安全位置；不要反复尝试起动，安排拖车",
            "读取整车控制器、电机控制器和电池管理系统故障码与冻结帧",
            "高压持证人员检查主接触器、预充、维修开关、熔断器和互锁回路",
            "检查 12 V 供电和接地、通信总线中断",
        ),
        ("拖车", "诊断仪", "高压防护用品", "主接触器和熔断器"),
    ),
    Words(
        "Drive lost while moving",
        "The vehicle was still rolling, but the high voltage was gone, or all motors were off with the pedal "
        "pressed.",
        (
            "Call the driver: parked in a safe place? No repeated restarts; recover the vehicle",
            "Read trouble codes and freeze frames of vehicle, motor and battery control units",
            "High-voltage personnel: main contactors, precharge, service disconnect, fuse, interlock",
            "Check 12 V supply, grounds and bus failures",
        ),
        (
            "recovery truck",
            "diagnostic tester",
            "high-voltage protective equipment",
            "main contactor and fuse",
        ),
    ),
)
DCDC_OFF: Final = FailureText(
    "dcdc_off",
    True,
    Words(
        "行驶中 DC-DC 断开",
        "行驶中 DC-DC 不工作，12 V 蓄电池正在放电，耗尽后会失去助力转向、制动助力和高压。",
        (
            "提醒车主尽快安全停车，不要关闭后再远行",
            "测量 12 V 蓄电池静态电压和起动后电压（应升至约 13.5–14.5 V）",
            "读取 DC-DC 故障码，检查输出熔断器、接地和冷却",
            "高压持证人员检查 DC-DC 高压输入；必要时更换 DC-DC",
            "若该车从未报告过“工作”：检查终端信号映射",
        ),
        ("12 V 蓄电池与测试仪", "DC-DC 输出熔断器", "DC-DC 转换器", "高压防护用品"),
    ),
    Words(
        "DC-DC converter off while moving",
        "The DC-DC converter does not work while driving: the 12 V battery runs down, and with it go power "
        "steering, brake boost and the high voltage.",
        (
            "Ask the driver to stop safely soon and not to set out again",
            "Measure the 12 V battery at rest and with the vehicle on (should rise to some 13.5–14.5 V)",
            "Read the converter's trouble codes; check output fuse, ground and cooling",
            "High-voltage personnel: check the converter's input; exchange the converter if need be",
            "If the vehicle never reported it working: check the gateway's signal mapping",
        ),
        (
            "12 V battery and tester",
            "output fuse",
            "DC-DC converter",
            "high-voltage protective equipment",
        ),
    ),
)
HV_INTERLOCK: Final = FailureText(
    "hv_interlock",
    True,
    Words(
        "高压互锁断开",
        "车辆处于起动或行驶状态时互锁回路报断开：某个高压接插件或盖板可能松开，存在触电和断电风险。",
        (
            "提醒车主停车检查，不要触碰高压部件",
            "读取互锁故障码，确定回路段",
            "高压持证人员断电验电后，逐个检查高压接插件、维修开关和盖板开关",
            "测量互锁回路通断，晃动线束复现",
        ),
        ("诊断仪", "高压防护用品", "高压接插件与互锁端子"),
    ),
    Words(
        "High-voltage interlock open",
        "The interlock loop is reported open in a started or moving vehicle: a high-voltage connector or "
        "cover may be loose. Danger of shock and of losing the drive.",
        (
            "Ask the driver to stop and to touch no high-voltage part",
            "Read the interlock trouble codes to find the section of the loop",
            "High-voltage personnel, dead and proven: connectors, service disconnect, covers one by one",
            "Measure the loop's continuity and wriggle the harness to reproduce it",
        ),
        ("diagnostic tester", "high-voltage protective equipment", "connectors and interlock terminals"),
    ),
)
BMS_ALARM: Final = FailureText(
    "bms_alarm",
    False,
    Words(
        "车辆报告最高级报警",
        "车辆自身报告最高报警级别，但平台数据中没有物理证据。电池管理系统的报警等级有误报，先观察。",
        (
            "下次进店读取故障码和冻结帧",
            "查看本报警前后的温度、电芯电压与绝缘曲线",
            "若反复出现，检查软件版本与已知公告",
        ),
        ("诊断仪",),
    ),
    Words(
        "Vehicle reports its highest alarm level",
        "The vehicle reports its highest alarm level while nothing physical in its data agrees. Such levels "
        "are noisy: watch it.",
        (
            "Read trouble codes and freeze frames at the next visit",
            "Look at temperature, cell voltages and insulation around this alert",
            "If it comes back: check software version and known bulletins",
        ),
        ("diagnostic tester",),
    ),
)

SAFETY: Final = (
    THERMAL_EVENT,
    INSULATION,
    INSULATION_SENSOR,
    CELL_OVERVOLTAGE,
    CELL_UNDERVOLTAGE,
    CELL_MEASUREMENT,
    DRIVE_LOST,
    DCDC_OFF,
    HV_INTERLOCK,
    BMS_ALARM,
)
