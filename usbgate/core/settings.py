"""
The settings of sensors: what the configuration has for each, as the parts read it.

Each attribute with a type of `usbgate.core.kinds` is a key of the file.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from usbgate.core.fieldkinds import FIELD_KINDS
from usbgate.core.fieldline import unit_of
from usbgate.core.kinds import (
    AlarmCondition,
    Buttons,
    CommandName,
    ControlCommand,
    ControlType,
    Decimals,
    DeviceName,
    FieldKindName,
    FieldName,
    Number,
    Options,
    PollEvery,
    Scale,
    Setter,
    Stale,
    Step,
    StoreEvery,
    Text,
    Texts,
    ValueTexts,
    Wait,
    YesNo,
)


class FieldSettings(Struct, frozen=True, kw_only=True):
    """
    A field of a sensor: `[sensor.ID.field.NAME]`.

    Attributes:
        kind: What it measures, or of what it is a state (`usbgate.core.fieldkinds`).
        label: What the page calls it, for all languages or by language.
        values: What the page shows for its values, by number or spelling, each for all languages or by language.
        unit: The unit that the page shows after a number.
        decimals: The number of decimals that the page shows; None for as many as the device sent.
        alarm: The condition for an alarm.
        scale: By what a number of the device is multiplied before it is shown.
        offset: What is then added.
        min: What is shown is not plausible below that; None for no limit.
        max: Likewise, above that.
        never_falls: Whether it counts up, as an electricity meter does, so that a lower number is a new beginning.
        rank: How late the page shows it among the fields of its sensor, as its dialect orders them; no setting.
    """

    kind: FieldKindName | None = None
    label: Texts | None = None
    values: ValueTexts = {}
    unit: Text | None = None
    decimals: Decimals | None = None
    alarm: AlarmCondition | None = None
    scale: Scale = 1.0
    offset: Number = 0.0
    min: Number | None = None
    max: Number | None = None
    never_falls: YesNo = False
    rank: float = inf

    @property
    def states(self) -> bool:
        """
        Whether its values are states, and no measurements.
        """
        return bool(self.values) or (self.kind is not None and FIELD_KINDS[self.kind].states)

    @property
    def is_calibrated(self) -> bool:
        """
        Whether anything else may be shown than the device sent.
        """
        return self.scale != 1 or self.offset != 0 or self.min is not None or self.max is not None

    def completed(self, known: FieldSettings, text: str | None) -> FieldSettings:
        """
        Complete what is configured by what the dialect knows of the field.

        A configured kind brings all that is not configured, so nothing is taken from the dialect then.

        Args:
            known: What the dialect knows.
            text: The text of the reading; if it has a unit of its own, the dialect's is not taken.
        """
        if self.kind is not None:
            return replace(self, rank=known.rank)
        unit = None if text is not None and unit_of(text) else known.unit
        return replace(
            self,
            kind=known.kind,
            label=self.label if self.label is not None else known.label,
            values=self.values or known.values,
            unit=self.unit if self.unit is not None else unit,
            decimals=self.decimals if self.decimals is not None else known.decimals,
            never_falls=self.never_falls or known.never_falls,
            rank=known.rank,
        )


class ControlSettings(Struct, frozen=True, kw_only=True):
    """
    What Home Assistant controls a sensor by: `[sensor.ID.control.NAME]`. The labels of the commands are empty.

    Attributes:
        type: Home Assistant's name for it; `usbgate.config.controls` knows which has which of the following.
        state: The field, in upper case, whose values are its states; None if there is none.
        on: The command that switches it on.
        off: The command that switches it off.
        open: The command that opens it.
        close: The command that closes it.
        stop: The command that stops it.
        set: The command that sets it to the value `usbgate.core.kinds.VALUE`.
        level: The field, in upper case, whose values are those that `set` sets a light to.
        min: The lowest value.
        max: The highest value.
        step: The steps between values.
        options: The values to choose from.
    """

    type: ControlType
    state: FieldName | None = None
    on: ControlCommand | None = None
    off: ControlCommand | None = None
    open: ControlCommand | None = None
    close: ControlCommand | None = None
    stop: ControlCommand | None = None
    set: Setter | None = None
    level: FieldName | None = None
    min: Number = 0.0
    max: Number = 100.0
    step: Step = 1.0
    options: Options = ()


class SensorSettings(Struct, frozen=True, kw_only=True):
    """
    A sensor: `[sensor.ID]`.

    Attributes:
        name: The name that the page shows.
        place: The place that the page shows.
        device: The name of the device that serves it; None for the one that owns it.
        default_command: The command of an `ask` without one.
        timeout: Seconds until a request fails.
        patience: Seconds to wait for an answer before asking again; None for the device's setting.
        store: Seconds after which an unchanged reading is stored as well, infinity for never; 0 stores all readings,
            None goes by the device.
        poll: Seconds after which usbgate asks it by itself; None for never.
        stale: Seconds after which its newest reading is out of date.
        commands: The buttons that the page shows.
        fields: Its fields, by key in upper case.
        controls: What Home Assistant controls it by, by name.
    """

    name: Text | None = None
    place: Text | None = None
    device: DeviceName | None = None
    default_command: CommandName | None = None
    timeout: Wait | None = None
    patience: Wait | None = None
    store: StoreEvery | None = None
    poll: PollEvery | None = None
    stale: Stale = 3600.0
    commands: Buttons = ()
    fields: dict[str, FieldSettings] = {}
    controls: dict[str, ControlSettings] = {}


UNCONFIGURED = SensorSettings()  # of sensors that are not configured
