"""A config after every file and flag was read: what a run is made of, printed and compared."""

import dataclasses
import hashlib
import json

from inception_tf.parameters import REFERABLE, SECTIONS, Reference, is_operation

NOT_READ = "(not read)"


@dataclasses.dataclass(frozen=True)
class Binding:
    """A value that a config file or the command line gives.

    Attributes:
      value: of a parameter, as its dataclass holds it; a Reference where it refers to a section.
      where: 'file:line', '--gin_param' or the flag, for messages.
      origin: the same without the machine's folders, for the saved config.
    """

    value: object
    where: str
    origin: str


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What every parameter of a command is, and who said so.

    Two are equal when they describe the same experiment, whoever said so.

    Attributes:
      sections: section -> its frozen dataclass, every fixed section, in printing order.
      values: 'section.name' -> value of every parameter that the command reads, in printing
        order, references as Reference.
      bound: 'section.name' -> Binding of those that a file or the command line gives.
      name: stem of the last gin file, such as 'irv2'.
    """

    sections: dict[str, object]
    values: dict[str, object]
    bound: dict[str, Binding] = dataclasses.field(compare=False)
    name: str = dataclasses.field(compare=False)

    def recipe(self):
        """'section.name' -> value of what decides the run's result, references as '@section()'."""
        return self._plain(lambda parameter: not is_operation(parameter))

    def operation(self):
        """'section.name' -> value of what a run may change while it goes on."""
        return self._plain(is_operation)

    def plain_values(self):
        """'section.name' -> value of both."""
        return self._plain(lambda parameter: True)

    def recipe_hash(self):
        """16 hexadecimal digits that two runs share exactly when their recipes are equal."""
        text = json.dumps(self.recipe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def text(self):
        """The whole resolved config as gin text that resolves to an equal Resolved."""
        lines = [f"# {self.name}, resolved: every parameter, and where its value comes from."]
        parts = (
            ("Recipe: decides the result; a run goes on only with the same", False),
            ("Operation: may change while a run goes on", True),
        )
        for title, wanted in parts:
            lines += ["", f"# ---- {title}."]
            section = None
            for parameter, value in self.values.items():
                if is_operation(parameter) is not wanted:
                    continue
                if parameter.split(".")[0] != section:
                    section = parameter.split(".")[0]
                    lines.append("")
                origin = self.bound[parameter].origin if parameter in self.bound else "default"
                lines.append(f"{parameter} = {_literal(value)}  # {origin}")
        return "\n".join(lines) + "\n"

    def _plain(self, is_wanted):
        return {
            parameter: repr(value) if isinstance(value, Reference) else value
            for parameter, value in self.values.items()
            if is_wanted(parameter)
        }


def printing_order(sections):
    """Section names as a resolved config prints them: a referable one after what may refer."""
    order = []
    for section in SECTIONS:
        order.append(section)
        if section == "training":
            order.extend(REFERABLE)
    return [section for section in order if section in sections]


def _literal(value):
    """A value as gin reads it, one item a line where it holds dicts."""
    if isinstance(value, tuple) and any(isinstance(item, dict) for item in value):
        return "(\n" + "".join(f"    {item!r},\n" for item in value) + ")"
    return repr(value)


def differences(saved, given):
    """The recipe parameters in which two configs differ.

    Args:
      saved, given: a Resolved, or a dict as `Resolved.recipe` returns it, through JSON or not.

    Returns:
      List of (parameter, saved value, given value); NOT_READ for one that a config does not read.
    """
    saved, given = _comparable(saved), _comparable(given)
    return [
        (parameter, saved.get(parameter, NOT_READ), given.get(parameter, NOT_READ))
        for parameter in {**saved, **given}
        if saved.get(parameter, NOT_READ) != given.get(parameter, NOT_READ)
    ]


def _comparable(recipe):
    # Through JSON on both sides: a manifest keeps tuples as lists.
    recipe = recipe.recipe() if isinstance(recipe, Resolved) else recipe
    return json.loads(json.dumps(recipe))


def describe_differences(found, *, saved="saved", given="given"):
    """What `differences` found, as a table of one line each."""
    rows = [("parameter", saved, given)]
    rows += [(name, *map(_shown, values)) for name, *values in found]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"  {name:<{widths[0]}}  {old:<{widths[1]}}  {new}" for name, old, new in rows
    )


def _shown(value):
    return value if value == NOT_READ else repr(value)
