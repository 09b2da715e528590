"""What was checked, what was found, and what has to be mended: the table of a dry run."""

import dataclasses

from inception_tf.errors import UserError
from inception_tf.reporting import quantities
from inception_tf.reporting.table import aligned_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One row of the table.

    Attributes:
      name: what was looked at.
      found: what was found there; of a failed check the rule, the finding and the remedy.
      state: 'ok', 'MEND', 'note' or '-' (not tried).
    """

    name: str
    found: str
    state: str = "ok"


class Report:
    """The checks of one dry run, in their order.

    Args:
      announce: whether each attempt is told of as it begins.
    """

    def __init__(self, *, announce=False):
        self.checks = []
        self._announce = announce

    @property
    def is_passed(self):
        """Whether nothing has to be mended."""
        return all(check.state != "MEND" for check in self.checks)

    def add(self, name, found, state="ok"):
        """Adds a row."""
        self.checks.append(Check(name=name, found=found, state=state))

    def attempt(self, name, produce, *, tell):
        """Makes a check: (whether it passed, what `produce` returned).

        Args:
          name: of the row.
          produce: function without arguments; raises UserError where something is to be mended.
          tell: of what it returned, the text of the row.
        """
        if self._announce:
            print(f"checking: {name}", flush=True)
        try:
            value = produce()
        except UserError as error:
            self.add(name, str(error), "MEND")
            return False, None
        self.add(name, tell(value))
        return True, value

    def text(self):
        """The table, then what has to be mended, then the verdict."""
        rows = []
        for check in self.checks:
            first, *others = (
                ["see below"] if check.state == "MEND" else check.found.splitlines() or [""]
            )
            rows.append((check.state, check.name, first))
            rows += [("", "", line) for line in others]
        lines = [aligned_table(rows, header=("", "check", "found"))]
        failed = [check for check in self.checks if check.state == "MEND"]
        lines += [f"\nto mend: {check.name}\n  {check.found}" for check in failed]
        tried = sum(check.state in ("ok", "MEND") for check in self.checks)
        checks = quantities.count_of(tried, "check")
        verdict = f"{len(failed)} of {checks} failed" if failed else f"{checks} passed"
        return "\n".join([*lines, f"\ndry run: {verdict}; nothing was saved"])
