"""Every line that binds something, in the order read: which one holds, and which does nothing."""

import dataclasses
import itertools

from inception_tf.errors import ConfigError, did_you_mean
from inception_tf.parameters import (
    APART,
    REFERABLE,
    SECTIONS,
    Reference,
    check_parameter,
    default_of,
    fit,
    parameter_names,
    same_name_elsewhere,
)
from inception_tf.resolved import Binding

_REQUIRED = "gin.REQUIRED"


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%NAME` as a value."""

    name: str

    def __repr__(self):
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Call:
    """`@name` or `@name()` as a line wrote it, not checked yet."""

    name: str
    has_parentheses: bool

    def __repr__(self):
        return f"@{self.name}{'()' if self.has_parentheses else ''}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One binding of a parameter 'section.name', or of a macro 'NAME', as it was written.

    Attributes:
      value: literals, with Macro and Call in them.
      where, origin: see Binding.
      source: the file, or what on the command line: it may bind a name once.
      order: how many lines were read before.
    """

    name: str
    value: object
    where: str
    origin: str
    source: object
    order: int

    @property
    def is_macro(self):
        """Whether the line defines a macro."""
        return "." not in self.name

    def __str__(self):
        return f"{self.name} = {self.value!r} ({self.where})"


class Lines:
    """All lines of the files and of the command line."""

    def __init__(self):
        self._by_name = {}  # the last line of a name holds
        self._order = itertools.count()

    def add(self, name, value, *, where, origin, source, including=()):
        """Adds a line.

        Args:
          name, value, where, origin, source: see Line.
          including: the files that include this line's file, at this moment.

        Raises:
          ConfigError: the name is unknown, or bound where this line must not override it.
        """
        line = Line(
            name=name,
            value=value,
            where=where,
            origin=origin,
            source=source,
            order=next(self._order),
        )
        if not line.is_macro:
            check_parameter(name, received=line)
        for other in self._by_name.setdefault(name, []):
            if other.source == source:
                raise ConfigError(
                    f"{name} is bound twice in one place.",
                    received=f"{other} and {line}",
                    remedy="Remove one of them.",
                )
            if other.source in including:
                raise ConfigError(
                    "A file includes others before it overrides them; this include undoes a line.",
                    received=f"{other}, then {line}",
                    remedy="Move the include up.",
                )
        self._by_name[name].append(line)

    def bindings(self):
        """'section.name' -> Binding of every bound parameter.

        Raises:
          ConfigError: an undefined or unused macro, an unknown reference, a wrong type, or a
            %gin.REQUIRED that nothing replaced.
        """
        self._check_macros_and_references()
        bound = {}
        for name, lines in self._by_name.items():
            last = lines[-1]
            if not last.is_macro:
                value = fit(name, self._expand(last.value, last), where=last.where)
                bound[name] = Binding(value, last.where, last.origin)
        return bound

    def _check_macros_and_references(self):
        macros = {name for name in self._by_name if "." not in name}
        used = set()
        for line in itertools.chain(*self._by_name.values()):
            for item in _special_items(line.value):
                if isinstance(item, Call):
                    _check_call(item, line)
                elif item.name in macros:
                    used.add(item.name)
                elif item.name != _REQUIRED:
                    raise ConfigError(
                        f"The macro %{item.name} is not defined.",
                        received=line,
                        remedy=did_you_mean(item.name, macros)
                        or f"Add a line {item.name} = value.",
                    )
        for name in sorted(macros - used):
            raise ConfigError(
                f"The macro {name} is defined and nothing uses it; a parameter is bound as "
                "section.parameter.",
                received=self._by_name[name][-1],
                remedy=did_you_mean(name, used) or same_name_elsewhere(name) or "Remove the line.",
            )

    def _expand(self, value, line, inside=()):
        """The value with its macros replaced and its calls as References."""
        if isinstance(value, Macro):
            if value.name == _REQUIRED:
                raise ConfigError(
                    f"{line.name} has to be given.",
                    received=line,
                    remedy=f"Give --gin_param='{line.name} = ...'.",
                )
            if value.name in inside:
                raise ConfigError("A macro must not need itself.", received=line)
            last = self._by_name[value.name][-1]
            return self._expand(last.value, last, (*inside, value.name))
        if isinstance(value, Call):
            return Reference(value.name)
        if isinstance(value, dict):
            return {key: self._expand(item, line, inside) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(self._expand(item, line, inside) for item in value)
        return value

    def check_read(self, read, *, reads, values, exempt):
        """Raises ConfigError for a line that nothing reads.

        Args:
          read: the sections whose parameters have an effect.
          reads: the fixed sections that the command reads, whatever the values.
          values: 'section.name' -> value, bound or default.
          exempt: function Line -> whether it may bind a section that another command reads.
        """
        for name, lines in self._by_name.items():
            section, line = name.split(".")[0], lines[-1]
            if line.is_macro or section in read or exempt(line):
                continue
            if not self._was_replaced(line, section):
                raise ConfigError(
                    _why_unread(section, reads, values),
                    received=line,
                    remedy="Remove the line: it would do nothing.",
                )

    def _was_replaced(self, line, section):
        """Whether a later source took away what reads the section of a line.

        An included recipe may describe the optimizer that the including file replaces; but a file
        that describes an optimizer and chooses another one contradicts itself.
        """
        for name, lines in self._by_name.items():
            before = [] if lines[0].is_macro else [default_of(name)]
            replacing = lines[1:] if lines[0].is_macro else lines
            before += [other.value for other in lines]
            for value, newer in zip(before, replacing, strict=False):
                is_later = newer.order > line.order and newer.source != line.source
                if is_later and _is_reader(name, value, section):
                    return True
        return False


def read_sections(values, reads):
    """The sections whose parameters have an effect.

    Args:
      values: 'section.name' -> value, bound or default, of every section.
      reads: the fixed sections that the command reads.
    """
    found = [
        section
        for section in (*SECTIONS, *APART)
        if section in reads
        and (
            section != "loss_scale"
            or _is_reader("model.precision", values["model.precision"], section)
        )
    ]
    for section in found:  # grows while it is walked
        for name in parameter_names(section):
            value = values[f"{section}.{name}"]
            if isinstance(value, Reference) and value.section not in found:
                found.append(value.section)
    return found


def _is_reader(name, value, section):
    """Whether a parameter or macro of this value makes a section be read."""
    if isinstance(value, Reference):
        return value.section == section
    if isinstance(value, Call):
        return value.name == section
    return section == "loss_scale" and (name, value) == ("model.precision", "mixed_float16")


def _why_unread(section, reads, values):
    if section in {*SECTIONS, *APART} and section not in reads:
        return f"This command does not read the section '{section}'."
    if section == "loss_scale":
        return (
            "loss_scale is read only with model.precision = 'mixed_float16', and here it is "
            f"{values['model.precision']!r}."
        )
    chosen = ", ".join(
        f"{name} = {value!r}"
        for name, value in values.items()
        if isinstance(value, Reference) and name.split(".")[0] in reads
    )
    return f"Nothing refers to @{section}(); there is {chosen or 'no reference'}."


def _special_items(value):
    """The macros and calls of a nested value."""
    if isinstance(value, (Macro, Call)):
        yield value
    elif isinstance(value, dict):
        yield from _special_items([*value, *value.values()])
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _special_items(item)


def check_scope(scope, name, *, where):
    """Raises ConfigError where a name has a scope, as in 'train/model.name'."""
    if scope:
        raise ConfigError(
            "There are no scopes: one section describes one thing.",
            received=f"{scope}/{name} ({where})",
            remedy=f"Write {name}.",
        )


def _check_call(call, line):
    scope, _, section = call.name.rpartition("/")
    check_scope(scope, f"@{section}()", where=line.where)
    if section not in REFERABLE:
        raise ConfigError(
            f"@{section} refers to nothing.",
            received=line,
            remedy=did_you_mean(section, REFERABLE)
            or f"There are {', '.join(f'@{known}()' for known in REFERABLE)}.",
        )
    if not call.has_parentheses:
        raise ConfigError(
            "A reference ends in ().", received=line, remedy=f"Write @{section}()."
        )
