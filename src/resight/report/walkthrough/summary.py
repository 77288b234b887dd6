"""`resight.summarize`: what goes through a recipe's model, from the loader's batch to the mAP."""

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from resight.config.run import Run
from resight.errors import ConfigError
from resight.report.walkthrough.axes import consistent, measured_axes
from resight.report.walkthrough.evaluation import evaluation_steps
from resight.report.walkthrough.example import make_example, plain_run, uses_modalities
from resight.report.walkthrough.html import as_html
from resight.report.walkthrough.markdown import as_markdown
from resight.report.walkthrough.measure import TrainedStep, thumbnails_of, train_one_step
from resight.report.walkthrough.record import count
from resight.report.walkthrough.rules import Part
from resight.report.walkthrough.steps import batch_steps, loss_steps, module_steps, optimizer_steps, token_parameters
from resight.report.walkthrough.text import as_text
from resight.report.walkthrough.value import Section, Step, Walkthrough
from resight.training.resolve import resolve

SummaryFormat = Literal["text", "markdown", "html"]
_PARTS: Final[dict[Part, tuple[str, str]]] = {
    "tokens": ("From images to tokens", "The network does not see pixels any more after this: an image is a sequence "
               "of vectors."),
    "block": ("Inside block 1", "All blocks compute the same with weights of their own; this is the first one."),
    "network": ("Through the network", "Each further block or stage transforms what the one before left."),
    "parts": ("Local features (JPM)", "Beside the global feature, each image gets features of parts of it."),
    "fusion": ("Fusion of the modalities", "The images of a sighting become one feature; absent ones take no part."),
    "heads": ("BNNeck and logits", "In training, each feature passes a normalisation over the batch and a classifier."),
}  # fmt: skip


@dataclass(frozen=True)
class Summary(Walkthrough):
    """A recipe's walkthrough, with its four forms."""

    def render(self, form: SummaryFormat = "text") -> str:
        """Return the walkthrough as text for a terminal, a Markdown page or a self-contained HTML page.

        Raises:
            ConfigError: there is no such form.
        """
        writers = {"text": as_text, "markdown": as_markdown, "html": as_html}
        if form not in writers:
            raise ConfigError(f"a summary is rendered as {', '.join(writers)}, not {form!r}")
        return writers[form](self)

    def document(self) -> dict[str, Any]:
        """Return all fields but the thumbnails by name, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "thumbnails"}


def summarize(run: Run) -> Summary:
    """Take one step of training and one evaluation of a recipe, and describe every tensor on the way.

    No data set is read and no weights are loaded: the images are synthetic (2 identities x 2 sightings), the weights
    random, and the model has the labels of an example: 751 identities, 6 cameras and 8 views. It computes on the CPU
    in float32.

    Args:
        run: a recipe.

    Raises:
        ConfigError: its settings exclude each other.
        StorageError: the synthetic images cannot be written to the temporary folder.

    Example:
        `print(resight.summarize(resight.recipes.transreid_trimodal()).render("markdown"))`
    """
    plain = resolve(plain_run(run))
    with tempfile.TemporaryDirectory(prefix="resight-") as folder:
        example = make_example(plain, Path(folder) / "images")
        trained = train_one_step(plain, example)
        evaluated = evaluation_steps(trained.context, trained.state, example.split)
    sections = consistent([*_training_sections(plain, trained), _evaluation_section(evaluated)])
    model = trained.state.model
    return Summary(
        recipe=run.recipe,
        backbone=run.model.backbone,
        form=_form(run),
        parameters=count(model),
        flops=trained.flops.get("backbone", 0),
        axes=measured_axes([step for section in sections for step in section.steps]),
        sections=sections,
        modalities=example.vocabulary.modalities,
        thumbnails=thumbnails_of(trained.batch),
    )


def _training_sections(run: Run, trained: TrainedStep) -> list[Section]:
    kinds = [*run.model.sie, *(["modality"] if trained.rows is not None else [])]
    side_info = {kind: labels for kind, labels in trained.side_info.items() if kind in kinds}
    batch = batch_steps(trained.batch, trained.images, side_info, trained.rows)
    sections = [Section("The batch", "What the loader gives, and what of it enters the network.", tuple(batch))]
    for part, (title, text) in _PARTS.items():
        records = [record for record in trained.records if record.rule.part == part]
        steps = module_steps(records, trained.flops)
        if part == "tokens":
            steps = _with_parameters(steps, token_parameters(trained.state.model))
        if part == "fusion":
            steps += _shares(trained)
        if steps:
            sections.append(Section(title, text, tuple(steps)))
    features = next((r for r in trained.records if r.rule.part == "heads" and r.rule.of_input), None)
    losses = loss_steps(run, trained.values, features)
    groups = optimizer_steps(trained.state)
    return [
        *sections,
        Section("The losses", "From features and logits to one number.", tuple(losses)),
        Section("The optimizer", "After the backward pass each parameter has a gradient; parameters of one learning "
                "rate and weight decay are a group.", tuple(groups)),
    ]  # fmt: skip


def _with_parameters(steps: list[Step], parameters: list[Step]) -> list[Step]:
    """Put the learned tokens and positions after the patches, to which they are added."""
    place = 1 + next((n for n, step in enumerate(steps) if step.name == "patches"), -1)
    return [*steps[:place], *parameters, *steps[place:]]


def _shares(trained: TrainedStep) -> list[Step]:
    weights = next((record.weights for record in trained.records if record.weights is not None), None)
    if weights is None:
        return []
    text = "The share of each modality in the fused feature: 0 where it is absent, and each row sums to 1."
    content = [[round(weight, 4) for weight in row] for row in weights.tolist()]
    return [Step("share of each modality", text, tuple(weights.shape), ("B", "M"), "float32", content,
                 source="models/fusion.py Fusion.forward")]  # fmt: skip


def _evaluation_section(steps: list[Step]) -> Section:
    text = (
        "The step of training is over; now queries search a gallery. The weights were random one step ago, so the "
        "figures say nothing about the recipe: they show what is computed."
    )
    return Section("The evaluation", text, tuple(steps))


def _form(run: Run) -> str:
    if run.model.fusion is not None:
        return (
            "Fusion: the images of all sightings and modalities pass the network as one batch, and those of a sighting "
            "then become one feature, whichever modalities are present."
        )
    if uses_modalities(run):
        return "Side information: every image is a sample of its own, and a learned vector tells its modality."
    return "One modality: every sighting is one image."
