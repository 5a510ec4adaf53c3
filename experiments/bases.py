"""What rows and samples start from: presets with the settings of a grid's file and of the command line."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from blurdm.core.config import Config
from blurdm.core.config_io import apply_override, read_yaml, validate
from blurdm.core.errors import InputError
from blurdm.core.registry import require
from experiments.grid_file import PRESET, Choice, Question
from experiments.variants import Shared, Variants

PRESETS, DEMO = Path(__file__).parent / "presets", Path(__file__).parent.parent / "params.yaml"


def preset_path(name: str) -> Path:
    """params.yaml for ``demo``, else a file in presets/, or any file if ``name`` ends in .yaml; InputError."""
    if name.endswith(".yaml"):
        return Path(name)
    require("preset", name, ("demo", *(path.stem for path in PRESETS.glob("*.yaml"))))
    return DEMO if name == "demo" else PRESETS / f"{name}.yaml"


class Bases:
    """The base config of each row: the preset of the grid or of the command line, or the row's own; each read once."""

    def __init__(
        self, file: Question, preset: str | None, overrides: Sequence[str], seeds: Iterable[int] | None
    ) -> None:
        self.preset = preset or file.preset
        self._command_line_preset = preset
        self._seeds = None if seeds is None else tuple(dict.fromkeys(seeds))
        self._file, self._overrides = file, overrides
        self._read: dict[str, Variants] = {}
        self._shared: Shared = {}
        self.seeds = self.of(self.preset).base.seeds

    def of(self, preset: str, where: str = "") -> Variants:
        """Configs made from ``preset``; InputError if it has other seeds than the grid's."""
        if preset not in self._read:
            base = self._config(preset_path(preset))
            self._read[preset] = Variants(base, self._shared)
        seeds = self._read[preset].base.seeds
        if seeds != self._read[self.preset].base.seeds:
            both = f"{list(seeds)} are the seeds of preset '{preset}', {list(self.seeds)} those of '{self.preset}'"
            raise InputError(f"{where}: {both}; should be the same, or given on the command line")
        return self._read[preset]

    def of_row(self, combination: Sequence[Choice]) -> Variants:
        """Configs for the row of these choices; InputError if one sets a preset and the command line does too."""
        setting = next((choice for choice in combination if PRESET in choice.settings), None)
        if setting is None:
            return self.of(self.preset)
        if not isinstance(setting.settings[PRESET], str):
            raise InputError(f"{setting.where}: {PRESET}: {setting.settings[PRESET]!r}; should be a name")
        if self._command_line_preset:
            raise InputError(f"preset '{self._command_line_preset}': {setting.where} of this grid sets the preset")
        return self.of(setting.settings[PRESET], setting.where)

    def _config(self, preset: Path) -> Config:
        """The preset with the settings of the file's ``base``, then the overrides of the command line."""
        tree = read_yaml(preset)
        validate(tree, str(preset))
        for key, value in self._file.base.items():
            section, _, name = key.partition(".")
            tree[section] = (tree.get(section) or {}) | {name: value}
        validate(tree, "base")
        for override in self._overrides:
            apply_override(tree, override)
            key = override.partition("=")[0]
            if key in self._file.axes:
                raise InputError(f"override '{override}': an axis of this grid sets {key}")
        if self._seeds is not None:
            tree["seeds"] = list(self._seeds)
        return validate(tree, "overrides")
