"""The probe shown at work without any pretrained weights, and checked: a section of ``mimlab reproduce``.

First the simulator's own layer, as a network: what the probe measures there is known in closed form. Then a vision
transformer with fresh weights on photographs: nearly uniform, the value that every later number has to be read
against. Of both nothing is stored but what the page says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mimlab.claims import judge_agreement
from mimlab.claims.networks import AgreementEvidence
from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.studies.outcomes import AGAIN, Outcome, Setting
from mimlab.studies.single import Simulation, simulate_config
from mimlab.world.world import World

if TYPE_CHECKING:
    from mimlab.report import Section

JOB = "the probe at work"
AREA_SIZES = (60, *[12] * 5, *[6] * 4)  # of 12 x 12 patches; Δ_p > 0 for local areas of both sizes
TIMES = 10  # at which the layer is measured
SIZES = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 224,
    "patch_size": 16,
}
SHOWN = ("entropy", "nmi", "diversity", "distance_ratio")


def probe_at_work(folder: Path) -> Outcome:
    """Judge the probe on the simulator's layer, and measure a fresh network; where torch or transformers cannot be
    imported, say what to install."""
    patches = sum(AREA_SIZES)
    label = f"{patches} patches, a global area of 60, local ones of 12 and 6; a network of the simulator's Φ and Υ"
    try:
        import torch  # noqa: F401
        from transformers import ViTConfig, ViTModel  # noqa: F401
    except Exception as error:  # with a torchvision that does not fit torch, not always an ImportError
        verdicts = judge_agreement(AgreementEvidence((), patches))
        setting = Setting("simulated layer", label, {v.claim.name: "inconclusive" for v in verdicts})
        return Outcome(JOB, setting.records(verdicts, None), sections=[_to_install(str(error))])
    simulation = simulate_config(
        SimulationConfig(World(area_sizes=AREA_SIZES), dynamics=Dynamics(engine="mean-field", query="all"))
    )
    found = measured_layer(simulation)
    figure = _draw(simulation, found, folder)
    setting = Setting("simulated layer", label, {})
    verdicts = judge_agreement(AgreementEvidence(pairs(found), patches))
    sections = [_simulated(found, figure), _fresh(folder)]
    return Outcome(JOB, setting.records(verdicts, figure), {"agreement": [figure]}, sections=sections)


def measured_layer(simulation: Simulation) -> list[dict[str, float]]:
    """Of a few times, evenly spread over the recorded ones: `time`, the simulator's `simulated_nmi` and
    `simulated_entropy`, and what the probe measures on the layer as it was then. For a run of every class."""
    import torch

    from mimlab.probing.capture import capture
    from mimlab.studies.one_layer import one_layer

    listed = [
        set(simulation.correlations.filter(pc.field("query") == run.row.query)["time"].to_pylist())
        for run in simulation.rows
    ]
    common = sorted(set.intersection(*listed))
    chosen = [common[i] for i in dict.fromkeys(np.linspace(0, len(common) - 1, TIMES).round().astype(int))]
    found = []
    for time in chosen:
        model, pixels = one_layer(simulation, time)
        with torch.inference_mode(), capture(model, method="tiles") as seen:
            model(pixels)
        here = simulation.trajectory.filter(pc.field("time") == time)
        probed = {name: seen[name].item() for name in ("nmi", "entropy", "diversity", "spread")}
        nmi = max(here["nmi"][0].as_py(), 0.0)  # 0 is computed as a difference
        simulated = {"simulated_nmi": nmi, "simulated_entropy": here["mean_entropy"][0].as_py()}
        found.append({"time": time, **simulated, **probed})
    return found


def pairs(found: list[dict[str, float]]) -> list[dict[str, Any]]:
    """What `AgreementEvidence` takes, of the records of `measured_layer`."""
    return [
        {"statistic": name, "time": one["time"], "simulated": one[f"simulated_{name}"], "probed": one[name]}
        for one in found
        for name in ("nmi", "entropy")
    ]


def _draw(simulation: Simulation, found: list[dict[str, float]], folder: Path) -> str:
    from mimlab.report.agreement import draw_agreement

    figure = "figures/agreement.png"
    one = simulation.trajectory.filter(pc.field("query") == simulation.rows[0].row.query)
    draw_agreement(one["time"].to_numpy()[1:], one["nmi"].to_numpy()[1:], found, folder / figure)
    return figure


def _simulated(found: list[dict[str, float]], figure: str) -> Section:
    from mimlab.report import Section

    titles = {
        "time": "time",
        "simulated_nmi": "NMI, simulator",
        "nmi": "NMI, probe",
        "simulated_entropy": "entropy, simulator",
        "entropy": "entropy, probe",
        "diversity": "diversity, probe",
        "spread": "spread, probe",
    }
    rows = [{title: round(one[key], 7) for key, title in titles.items()} for one in found]
    sentence = (
        "The layer that the simulator trains, built as a network at several times of its training, and measured by the "
        "probe as any model is. From uniform attention, diversity 0, masked image modeling takes it to attention that "
        "differs from area to area."
    )
    return Section("The probe on the simulator's layer", sentence, figures=[figure], rows=rows, command=AGAIN)


def _fresh(folder: Path) -> Section:
    """A vision transformer with fresh weights, on scikit-image's photographs."""
    import torch
    from transformers import ViTConfig, ViTModel

    from mimlab.report import Section
    from mimlab.report.numbers import ABSENT
    from mimlab.report.probe_readings import UNMEASURED, readings
    from mimlab.report.probe_sections import layer_rows
    from mimlab.report.probes import draw_depth
    from mimlab.studies.probe import probe
    from mimlab.studies.probe_subjects import named_module

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = ViTModel(ViTConfig(**SIZES), add_pooling_layer=False).eval()
    named = replace(named_module(module), name="fresh ViT")
    found = probe(named, random_weights=False, method="tiles")
    (model,) = found.summary["models"]
    figure = "figures/fresh.png"
    draw_depth(found.layers, [model], folder / figure, SHOWN)
    told = [one for one in readings(found.layers, model) if one["depth"] not in (ABSENT, UNMEASURED)]
    sentence = (
        f"A vision transformer that has learned nothing, weights as drawn, on {found.summary['images']} photographs. "
        "What a pretrained model shows has to be read against this."
    )
    return Section(
        "The probe on fresh weights",
        sentence,
        figures=[figure],
        rows=layer_rows(model, found.layers.filter(pc.is_in(found.layers["statistic"], pa.array(SHOWN[:3])))),
        details=[
            (f"Depth {one['depth']}: {one['reading']}", f"{one['when']}. {one['meaning']}") for one in told
        ],
    )


def _to_install(reason: str) -> Section:
    from mimlab.report import Section

    sentence = f"The probe needs torch and transformers, which cannot be imported here ({reason})."
    return Section(
        "The probe at work", sentence, details=[("Install", "pip install 'mimlab[probe]'")], command=AGAIN
    )
