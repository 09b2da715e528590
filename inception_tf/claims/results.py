"""The outcome of a claim: means over seeds against its checks, as JSON that a page can show."""

import json
import math
import statistics

from inception_tf import durable
from inception_tf.claims.measures import is_never, label_of
from inception_tf.claims.spec import COST_TOLERANCE, RELATIONS
from inception_tf.errors import ConfigError
from inception_tf.reporting.table import aligned_table

MIN_SEEDS = 3  # below, nothing is decided
IMAGENET_EXAMPLES = 1_281_167
FORMAT, VERSION = "inception_tf claim", 1
VERDICTS = {True: "holds", False: "failed", None: "not decided: runs are missing"}


def outcome(spec, arms) -> dict:
    """Everything that is known of a claim after its runs.

    Args:
      spec: ClaimSpec.
      arms: [{'name', 'multiply_adds', 'parameters', 'runs': [{'seed', 'measures', 'curves'}]}].

    Returns:
      A JSON value; 'holds' is None until every arm has every seed, and with fewer than three.
    """
    by_name = {arm["name"]: arm for arm in arms}
    is_complete = len(spec.seeds) >= MIN_SEEDS and all(
        {run["seed"] for run in arm["runs"]} >= set(spec.seeds) for arm in by_name.values()
    )
    checks = [_checked(check, by_name) for check in spec.parsed_checks()]
    return {
        "format": FORMAT,
        "version": VERSION,
        "number": spec.number,
        "title": spec.title,
        "source": spec.source,
        "statement": spec.statement,
        "criterion": spec.criterion,
        "measures": list(spec.measures),
        "seeds": list(spec.seeds),
        "holds": _verdict(checks) if is_complete else None,
        "checks": checks,
        "arms": arms,
    }


def _verdict(checks):
    held = [check["held"] for check in checks]
    return None if not held or None in held else all(held)


def check_costs(spec, multiply_adds):
    """Lines that show the costs that a claim compares; ConfigError where they differ too much.

    Args:
      multiply_adds: arm -> of its network, for one image.
    """
    lines = []
    for group in spec.equal_cost:
        costs = [multiply_adds[name] for name in group]
        spread = max(costs) / min(costs) - 1.0
        told = ", ".join(f"{name} {multiply_adds[name]:,}" for name in group)
        if spread > COST_TOLERANCE:
            raise ConfigError(
                f"Networks that are compared at equal cost must agree within "
                f"{COST_TOLERANCE:.0%}.",
                received=f"{told} multiply-adds, {spread:.1%} apart",
                remedy="Change block_counts or width_multiplier of one of them.",
            )
        lines.append(f"equal cost within {COST_TOLERANCE:.0%}: {told} ({spread:.1%} apart)")
    if spec.unequal_cost:
        spread = max(multiply_adds.values()) / min(multiply_adds.values()) - 1.0
        lines.append(f"costs up to {spread:.1%} apart: {spec.unequal_cost}")
    return lines


def values_of(arm, measure) -> list[float | None]:
    """A measure of the single runs of an arm, in the order of the seeds; [] where it has none."""
    if not any(measure in run["measures"] for run in arm["runs"]):
        return []
    return [run["measures"].get(measure) for run in arm["runs"]]


def mean_of(values) -> float | None:
    """The mean; None where there is nothing, or where a run never came to it."""
    return None if not values or None in values else statistics.fmean(values)


def save(path, content):
    """Writes an outcome."""
    durable.save_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read(path) -> dict:
    """An outcome that `save` wrote.

    Raises:
      ConfigError: the file is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_ours = (content["format"], content["version"]) == (FORMAT, VERSION)
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(
            f"An outcome of a claim is JSON of {FORMAT}, version {VERSION}.", received=str(path)
        )
    return content


def text_of(content) -> str:
    """An outcome in words and columns."""
    header, rows = table_of(content)
    lines = [
        f"claim {content['number']}: {content['title']}",
        f"source: {content['source']}",
        f"criterion: {content['criterion']}",
        "",
        aligned_table(rows, header=header, align="l" + "r" * (len(header) - 1)),
        "",
    ]
    lines += [f"  {line}" for line in check_lines(content)]
    lines += imagenet_lines(content)
    lines.append(f"the claim: {VERDICTS[content['holds']]}")
    return "\n".join(lines)


def markdown_of(content) -> str:
    """An outcome as the section of docs/results.md that it has, but for the sentence on it."""
    header, rows = table_of(content)
    lines = [
        f"### Claim {content['number']}: {content['title']}",
        "",
        f"{content['source']}: {content['statement']}.",
        "",
        f"Criterion, written before the runs: {content['criterion']}. "
        f"**{VERDICTS[content['holds']].capitalize()}.**",
        "",
        "```bash",
        content["command"],
        "```",
        "",
        *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)),
        "",
        *(f"- {line}" for line in check_lines(content)),
    ]
    if costs := imagenet_lines(content):
        lines += ["", *(f"- {line}" for line in costs)]
    return "\n".join([*lines, "", f"{content['date']}, {content['machine']}."])


def check_lines(content):
    """A line for each check: whether it held, and what stood on its two sides."""
    lines = []
    for check in content["checks"]:
        mark = {True: "yes", False: "no", None: "open"}[check["held"]]
        sides = f": {_shown(check['left'])} against {_shown(check['right'])}"
        lines.append(f"{mark}: {check['text']}{'' if check['held'] is None else sides}")
    return lines


def imagenet_lines(content):
    """What the paper's own runs would cost at the rate that was measured; they are not run."""
    lines = []
    for arm in content["arms"]:
        paper = arm.get("imagenet")
        measured = [secs for secs in values_of(arm, "secs_per_step") if secs]
        if paper is None or not measured:
            continue
        secs = min(measured)  # of the run that had the least beside it
        rate = arm["multiply_adds"] * arm["images_per_step"] / secs
        total = paper["epochs"] * IMAGENET_EXAMPLES * paper["multiply_adds"]
        lines.append(
            f"ImageNet, {paper['config']}: not run. {paper['epochs']:g} epochs x "
            f"{IMAGENET_EXAMPLES:,} images x {paper['multiply_adds'] / 1e9:.2f} G multiply-adds at "
            f"{rate / 1e9:.2f} G/s, as this narrow network was trained here (a wide one is faster): "
            f"{total / rate / 86400:,.0f} days"
        )
    return lines


def table_of(content):
    """(header, rows): of each arm the mean, range and single runs of every measure."""
    header = ["", "M multiply-adds"]
    header += [label_of(measure) for measure in content["measures"]]
    rows = []
    for arm in content["arms"]:
        cost = arm.get("multiply_adds")
        row = [arm["name"], f"{cost / 1e6:.3f}" if cost else ""]
        row += [_cell(values_of(arm, measure), measure) for measure in content["measures"]]
        rows.append(row)
    return header, rows


def _cell(values, measure):
    """'mean (one, two, three)' of the single runs, 'never' for what did not come."""
    missing = "never" if is_never(measure) else "-"
    if not values or all(value is None for value in values):
        return missing if values else ""
    texts = [missing if v is None else _shown(v) for v in (mean_of(values), *values)]
    return f"{texts[0]} ({', '.join(texts[1:])})"


def _shown(value):
    if value is None or math.isinf(value):
        return "never"
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _checked(check, by_name):
    left = _side(check.left, by_name)
    right = check.offset if check.right is None else _side(check.right, by_name)
    if check.right is not None and right is not None:
        right += check.offset
    is_open = left is None or right is None
    held = None if is_open else bool(RELATIONS[check.relation](left, right))
    return {"text": check.text, "left": _finite(left), "right": _finite(right), "held": held}


def _side(side, by_name):
    """A mean; infinite where a run never came to it, None where one has not got it."""
    measure, arm = side
    values = values_of(by_name[arm], measure)
    if not values:
        return None
    mean = mean_of(values)
    return math.inf if mean is None and is_never(measure) else mean


def _finite(value):
    return None if value is None or math.isinf(value) else value
