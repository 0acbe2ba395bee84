"""The description of one world: devices, services, hardware limits, radio, arrivals, weights. Frozen and validated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, Strict, field_validator, model_validator

from splitinfer.energy.card import DeviceCard, load_device
from splitinfer.errors import InputError, ScenarioError
from splitinfer.profiling.profile import Profile
from splitinfer.scheduling.rules import ALLOCATIONS
from splitinfer.simulation.arrivals import ArrivalModel, PoissonArrivals
from splitinfer.simulation.channel import MAX_BITS_PER_S_PER_HZ, ChannelModel, RateProcess, RayleighChannel
from splitinfer.simulation.choices import Choice, choices_of_devices, cut_places
from splitinfer.simulation.drift import Drift
from splitinfer.simulation.fields import (
    Count,
    NonNegative,
    PerDevice,
    PerService,
    Positive,
    Settings,
    spread_over_devices,
    spread_over_services,
)
from splitinfer.simulation.services import model_ref, profile_of

THERMAL_NOISE_W_PER_HZ = 3.9810717055349695e-21
"""-174 dBm/Hz in W/Hz."""


MAX_DEVICES = 100_000
"""Most devices of a scenario: each has queues, streams of random numbers and a place in every table."""

MAX_SLOTS_PER_PERIOD = 1_000_000_000
"""Most slots of a partition period; compiled loops count them in 64 bits, and messages in 32."""

MAX_TASKS_PER_SLOT = 10_000.0
"""Most requests of one service in one slot, in the mean."""


def _known_service(service: Any) -> str | Profile:
    if not isinstance(service, str | Profile):
        raise ValueError(
            "a service is a model's name, a card file, package.module:factory, a profile's JSON file or a Profile"
        )
    try:
        profile_of(service)
    except InputError as error:
        raise ValueError(str(error)) from None
    return service


def _known_codec(name: str) -> str:
    from splitinfer.wire.codecs import codecs_named

    try:
        codecs_named([name])
    except InputError as error:
        raise ValueError(str(error).removeprefix("codec: ")) from None
    return name


def check_allocation(name: str) -> None:
    """Refuse what is no allocation.

    Raises:
        ScenarioError: it is neither a known rule nor of the form ``package.module:Class``.
    """
    if name not in ALLOCATIONS and ":" not in name:
        raise ScenarioError(f"allocation: must be {', '.join(ALLOCATIONS)} or package.module:Class, not {name!r}")


def _named_kind(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return {"kind": "own", "name": value} if ":" in value else {"kind": value}


Service = Annotated[Any, BeforeValidator(_known_service)]
CodecName = Annotated[str, AfterValidator(_known_codec)]


class Scenario(Settings):
    """One world to simulate or to run. The defaults are the paper's Table II (preset ``table2``).

    Every number is in SI units. A value per service is one number for all, a list with one value per service (the same
    on every device), or a list of such lists, one per device.

    Attributes:
        name: what tables and plots call it.
        num_devices: M, the number of devices.
        services: what each device hosts: names of models, card files, ``package.module:factory``, profile JSON files
            or ``Profile`` objects. One list for every device, or one list per device.
        arrival_rate_hz: mean requests per second and service (lambda).
        arrivals: ``poisson``, ``periodic``, ``bursty`` or ``trace``, with its settings; or ``package.module:Class``.
        slot_s: tau, the step of resource allocation.
        slots_per_period: G, slots in a partition period.
        max_local_frequency_hz: F^l, the highest total CPU frequency of each device.
        max_edge_frequency_hz: F^e, the edge's CPU frequency, shared by all devices.
        max_power_w: p_max, the highest transmit power of each device.
        bandwidth_hz: B_w, shared evenly by the devices: each has b = B_w / M.
        noise_w_per_hz: N0, noise power density; -174 dBm/Hz by default.
        antenna_gain: A_d of the path loss.
        carrier_frequency_hz: f_c, the carrier frequency.
        path_loss_exponent: d_e, the power of distance with which the gain falls.
        distances_m: distance of each device to the edge; by default spread evenly over 150 to 250 m.
        channel: ``rayleigh``, ``correlated``, ``steady``, ``trace`` (gains), ``rate``, ``mahimahi`` or ``drive-test``
            (rates), with its settings; or ``package.module:Class``.
        drift: timetable of changing distances and rates, if the world moves.
        cycles_per_mac: rho, CPU cycles per MAC.
        energy_coefficient: delta, power per cubed frequency of the processor.
        local_energy_weight: U^l, the weight of local energy against backlog.
        transmission_energy_weight: U^t, the weight of transmission energy against backlog.
        queue_weights: beta, weights of the scaled local, transmission and edge queue in Qbar.
        queue_scale_cycles: scale of the local and edge queue in Qbar.
        queue_scale_bits: scale of the transmission queue in Qbar.
        reward_energy_weight: w1 of the reward (34), per joule.
        reward_queue_weight: w2 of the reward (34), per unit of scaled queue.
        bits_per_element: bits on the wire of one element of the input and of every crossing tensor.
        codecs: name of a codec of the wire, whose estimate for each tensor's dtype stands instead of
            ``bits_per_element``, and whose encoding the device computes; a live run sends tensors in it. A list of
            names lets the policy choose the codec with the cut, a list of lists has such a list per service.
        min_accuracy: least share of unchanged answers that a codec may leave, by the profile's measurement; per
            service. Without ``codecs`` the policy then chooses among all that were measured.
        cuts: which cuts a policy may choose: ``all``, ``blocks`` (after each block of the network, as most papers have
            it), ``pareto`` (those that no other beats in both device work and bits), or ``sets`` (likewise, of all cuts
            and the profile's set cuts).
        downlink_bps: rate at which the edge's answers come back to each device, one after the other, or one rate per
            device. It adds to latency and takes no energy. By default answers come back at once, as in the paper.
        device: device card (``splitinfer devices``), or one per device: ``paper``, or ``NAME``, ``NAME:RADIO``, a TOML
            file. A card other than ``paper`` gives F^l, the processor's power, cycles per MAC on the device, p_max and
            the radio's power in place of the fields above; ``cycles_per_mac`` then is the edge's.
        allocation: rule of the slots: ``drift-plus-penalty`` (the paper's), ``price``, or ``package.module:Class``.
        latency_price_w: w, joules that a second of one task's latency is worth, or one per device; for ``price``.
        price_growth_s: under ``price``, w is paid once more for each so many seconds since the oldest task at a
            processor or link came: better tails, a worse mean; 0: w stays.
        service_order: whom ``price`` serves first: ``shortest`` (best mean latency) or ``oldest`` (best tail).
        fixed_cuts: the cuts of Fix-Cov; by default everything on the device.
        p95_latency_s: latency target per service; the weights then adapt on line (0 leaves a service without one).
        seed: mixed into every run's seed.
    """

    name: str = "custom"
    num_devices: Annotated[Count, Field(le=MAX_DEVICES)] = 4
    services: tuple[Service, ...] | tuple[tuple[Service, ...], ...] = Field(
        default=("resnet50", "mobilenet_v2"), validate_default=True
    )
    arrival_rate_hz: PerService = 0.2
    arrivals: Annotated[ArrivalModel, BeforeValidator(_named_kind)] = PoissonArrivals()
    slot_s: Positive = 0.01
    slots_per_period: Annotated[Count, Field(le=MAX_SLOTS_PER_PERIOD)] = 10
    max_local_frequency_hz: Positive = 1.5e9
    max_edge_frequency_hz: Positive = 20e9
    max_power_w: Positive = 0.3
    bandwidth_hz: Positive = 1e6
    noise_w_per_hz: Positive = THERMAL_NOISE_W_PER_HZ
    antenna_gain: Positive = 3.0
    carrier_frequency_hz: Positive = 915e6
    path_loss_exponent: Positive = 3.0
    distances_m: tuple[Positive, ...] = ()
    channel: Annotated[ChannelModel, BeforeValidator(_named_kind)] = RayleighChannel()
    drift: Drift | None = None
    cycles_per_mac: Positive = 0.12
    energy_coefficient: Positive = 1e-28
    local_energy_weight: NonNegative = 1e9
    transmission_energy_weight: NonNegative = 1e6
    queue_weights: tuple[NonNegative, NonNegative, NonNegative] = (0.6, 0.2, 0.2)
    queue_scale_cycles: Positive = 1e9
    queue_scale_bits: Positive = 1e6
    reward_energy_weight: NonNegative = 1e3
    reward_queue_weight: NonNegative = 1.0
    bits_per_element: Positive = 8.0
    codecs: CodecName | tuple[CodecName, ...] | tuple[tuple[CodecName, ...], ...] | None = None
    min_accuracy: PerService | None = None
    cuts: Literal["all", "blocks", "pareto", "sets"] = "all"
    downlink_bps: PerDevice | None = None
    device: str | tuple[str, ...] = "paper"
    allocation: str = "drift-plus-penalty"
    latency_price_w: PerDevice = 0.01
    price_growth_s: NonNegative = 0.0
    service_order: Literal["shortest", "oldest"] = "shortest"
    fixed_cuts: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None
    p95_latency_s: PerService | None = None
    seed: Annotated[int, Strict(), Field(ge=0)] = 0

    _profiles: tuple[tuple[Profile, ...], ...] = PrivateAttr()
    _cards: tuple[DeviceCard, ...] = PrivateAttr()
    _choices: tuple[tuple[tuple[Choice, ...], ...], ...] = PrivateAttr()

    @field_validator("services", mode="before")
    @classmethod
    def _one_service(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Profile) else value

    @field_validator("distances_m", mode="before")
    @classmethod
    def _one_distance_for_all(cls, value: Any, info: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (float(value),) * info.data.get("num_devices", 1)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.distances_m:
            # Past pydantic, so that the field does not count as set and `replace(num_devices=...)` spreads anew.
            object.__setattr__(self, "distances_m", tuple(np.linspace(150.0, 250.0, self.num_devices).tolist()))
        names = (self.device,) * self.num_devices if isinstance(self.device, str) else self.device
        if len(names) != self.num_devices:
            raise ScenarioError(f"device: has {len(names)} cards, but num_devices is {self.num_devices}")
        try:
            cards = {name: load_device(name) for name in dict.fromkeys(names)}
        except InputError as error:
            raise ScenarioError(str(error)) from None
        self._cards = tuple(cards[name] for name in names)
        check_allocation(self.allocation)
        spread_over_devices(self.latency_price_w, self.num_devices, "latency_price_w")
        services = self._services_of_devices()
        self._profiles = tuple(tuple(profile_of(service) for service in device) for device in services)
        spread_over_devices(self.distances_m, self.num_devices, "distances_m")
        self._check_downlink()
        self._check_rate("arrival_rate_hz", self.arrival_rates_hz())
        if self.p95_latency_s is not None:
            spread_over_services(self.p95_latency_s, self.num_services, "p95_latency_s")
        self._choices = choices_of_devices(
            self._profiles,
            rho=self.device_cycles_per_mac,
            bits_per_element=self.bits_per_element,
            cuts=self.cuts,
            codecs=self.codecs,
            min_accuracy=self.min_accuracy,
        )
        self.cut_array(self.fixed_cuts)
        self.arrivals.start(self.active, self.slot_s, np.random.default_rng(0))
        channel = self.channel.start(self.num_devices, self.slot_s, np.random.default_rng(0))
        if isinstance(channel, RateProcess):
            wanted = channel.highest_bps / (self.bandwidth_hz / self.num_devices)
            if wanted > MAX_BITS_PER_S_PER_HZ:
                raise ScenarioError(
                    f"channel.path: up to {channel.highest_bps:.3g} bit/s over a device's {self.bandwidth_hz:g} / "
                    f"{self.num_devices} Hz is {wanted:.0f} bit/s per Hz; set bandwidth_hz to what the link has"
                )
        if self.drift is not None:
            self.drift.check()
            self.drift_distances_m()
            self._check_rate("drift.steps: arrival_rate_hz", self.drift_rates_hz())
        return self

    def _check_downlink(self) -> None:
        if self.downlink_bps is None:
            return
        spread_over_devices(self.downlink_bps, self.num_devices, "downlink_bps")
        silent = [profile.model for device in self._profiles for profile in device if not profile.outputs]
        if silent:
            raise ScenarioError(
                f"downlink_bps: the profile of {silent[0]} does not say how large an answer is; profile it anew"
            )

    def _check_rate(self, field: str, rates_hz: NDArray[np.float64]) -> None:
        if rates_hz.size and float(rates_hz.max()) * self.slot_s > MAX_TASKS_PER_SLOT:
            raise ScenarioError(
                f"{field}: {float(rates_hz.max()):g} requests a second in slots of {self.slot_s:g} s are more than "
                f"{MAX_TASKS_PER_SLOT:g} a slot"
            )

    def _services_of_devices(self) -> tuple[tuple[str | Profile, ...], ...]:
        per_device = bool(self.services) and isinstance(self.services[0], tuple)
        if per_device and len(self.services) != self.num_devices:
            raise ScenarioError(
                f"services: has lists for {len(self.services)} devices, but num_devices is {self.num_devices}"
            )
        devices = self.services if per_device else (self.services,) * self.num_devices
        if not all(devices):
            raise ScenarioError("services: every device needs at least one")
        return devices  # type: ignore[return-value]

    @property
    def profiles(self) -> tuple[tuple[Profile, ...], ...]:
        """The profiles of each device's services, M tuples."""
        return self._profiles

    def device_cycles_per_mac(self, device: int, model: str = "") -> float:
        """Return rho of a model on a device: its card's, or ``cycles_per_mac`` with the card ``paper``."""
        name = self.device if isinstance(self.device, str) else self.device[device]
        return self.cycles_per_mac if name == "paper" else self._cards[device].used_core.rho(model)

    @property
    def choices(self) -> tuple[tuple[tuple[Choice, ...], ...], ...]:
        """What each service of each device chooses from; a policy's "cut" is a place in it.

        With one codec and all cuts, which is the default, the places are the cuts 0..K themselves.
        """
        return self._choices

    @property
    def has_plain_cuts(self) -> bool:
        """Whether a policy chooses among all cuts and nothing else, so that places among the choices are the cuts."""
        return self.cuts == "all" and self.min_accuracy is None and not isinstance(self.codecs, tuple)

    def chosen(self, places: NDArray[np.int64]) -> list[list[Choice]]:
        """Return the cut and codec at each service's place among its choices; ``places`` is (M, N)."""
        return [
            [choices[int(place)] for choices, place in zip(services, row, strict=False)]
            for services, row in zip(self._choices, places, strict=True)
        ]

    def model_refs(self) -> dict[str, str | None]:
        """Return, by the name in its profile, what ``load_model`` takes for each service; None for profiles alone."""
        services = [one for device in self._services_of_devices() for one in device]
        return {profile_of(service).model: model_ref(service) for service in services}

    @property
    def cards(self) -> tuple[DeviceCard, ...]:
        """The device cards, M of them."""
        return self._cards

    @property
    def num_services(self) -> tuple[int, ...]:
        """N_m, the number of services of each device."""
        return tuple(len(device) for device in self._profiles)

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which (m, n) exist, shape (M, N) with N the largest number of services."""
        return np.arange(max(self.num_services)) < np.array(self.num_services)[:, None]

    @property
    def num_cuts(self) -> NDArray[np.int64]:
        """The last choice of each service, K where it has all cuts, shape (M, N); 0 where there is none."""
        table = np.zeros(self.active.shape, dtype=np.int64)
        for device, services in enumerate(self._choices):
            table[device, : len(services)] = [len(choices) - 1 for choices in services]
        return table

    def cut_array(self, cuts: Any = None, *, field: str = "fixed_cuts") -> NDArray[np.int64]:
        """Spread cuts over all services and return their places among the choices, shape (M, N).

        Args:
            cuts: one cut k per service, or one list per device; None keeps every service on its device (k = K). Where a
                cut may be sent in several codecs, it is sent in the fewest bits.
            field: name for the error.

        Raises:
            ScenarioError: a cut is out of range or left out, or the lengths do not fit.
        """
        return self.num_cuts if cuts is None else cut_places(cuts, self._profiles, self._choices, field)

    def arrival_rates_hz(self) -> NDArray[np.float64]:
        """Return the mean rates at the start, shape (M, N)."""
        return spread_over_services(self.arrival_rate_hz, self.num_services, "arrival_rate_hz")

    def latency_targets_s(self) -> NDArray[np.float64] | None:
        """Return the p95 targets, shape (M, N), 0 where a service has none; None where no service has one."""
        if self.p95_latency_s is None:
            return None
        return spread_over_services(self.p95_latency_s, self.num_services, "p95_latency_s")

    def drift_distances_m(self) -> NDArray[np.float64]:
        """Return the distances at each step of the drift, shape (steps, M)."""
        steps = () if self.drift is None else self.drift.steps
        return np.array(
            [
                spread_over_devices(
                    self.distances_m if step.distances_m is None else step.distances_m,
                    self.num_devices,
                    f"drift.steps[{index}].distances_m",
                )
                for index, step in enumerate(steps)
            ]
        )

    def drift_rates_hz(self) -> NDArray[np.float64]:
        """Return the arrival rates at each step of the drift, shape (steps, M, N)."""
        steps = () if self.drift is None else self.drift.steps
        return np.array(
            [
                spread_over_services(
                    self.arrival_rate_hz if step.arrival_rate_hz is None else step.arrival_rate_hz,
                    self.num_services,
                    f"drift.steps[{index}].arrival_rate_hz",
                )
                for index, step in enumerate(steps)
            ]
        )

    def replace(self, **changes: Any) -> Scenario:
        """Return another scenario with some fields changed, validated anew.

        Fields that were never set follow their defaults: with more devices, ``distances_m`` spreads anew. Other
        ``services`` take ``fixed_cuts`` back to its default, unless it is given too: cuts mean nothing elsewhere.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        if "services" in changes:
            kept.pop("fixed_cuts", None)
        return Scenario(**(kept | changes))

    @classmethod
    def preset(cls, name: str) -> Scenario:
        """Return a scenario that is shipped: ``table2``, ``busy``, ``xr`` or ``drifting``."""
        from splitinfer.simulation.scenario_file import load_preset

        return load_preset(name)

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read a scenario from a TOML file; paths in it are relative to the file."""
        from splitinfer.simulation.scenario_file import load_scenario

        return load_scenario(path)

    def save(self, path: str | Path) -> None:
        """Write the fields that were set as TOML. ``Profile`` objects are written beside it as JSON files."""
        from splitinfer.simulation.scenario_file import save_scenario

        save_scenario(self, path)
