"""Labels that are proposals: one mask of each bag is selected, learned, refined and delivered."""

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor, nn

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, ObjectMasks, PseudoLabels, Selection
from sapnet.data.resize import MASK_STRIDE
from sapnet.data.sampler import Step
from sapnet.data.samples import ImageRecord, mask_grid
from sapnet.errors import Stopped
from sapnet.labelers.affinity.loss import affinity_loss
from sapnet.labelers.affinity.refine import Guides, affinity_guides, refine
from sapnet.labelers.base import Labeler, Preparation
from sapnet.labelers.delivery import alternatives, confirmed, deliver, refined_masks
from sapnet.labelers.quality import compute_mask_features
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.bag_features import BagCollator
from sapnet.labelers.sapnet.selector import MilResult
from sapnet.labelers.sapnet.teacher import (
    TeacherDataset,
    fit_teacher,
    overlap_of,
    read_proposal_scores,
    score_proposals,
    write_proposal_scores,
)
from sapnet.types import ProposalScores, PseudoMask, Rle
from sapnet.utils.device import async_to_host, to_device
from sapnet.utils.distributed import global_sum


class BagLabeler(Labeler):
    """Base of SAPNet's family of methods, which differ in how they select.

    The selected masks are assigned and learned as they are. With `refine.enabled`, what the
    segmenter draws is also drawn to its own affinity refinement (L_aff, Eq. 26). A teacher, with
    `teacher.enabled`, is trained before the first step, and its scores of the proposals join the
    selection as priors.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.preparation = "teacher" if config.teacher.enabled else None
        self.collate = BagCollator(config.mil)

    def select(
        self, batch: Batch, bags: Bags, features: list[Tensor], step: Step | None
    ) -> MilResult:
        """Which mask of each bag it is.

        Args:
            bags: on the CPU. Other arguments as in `forward`.
        """
        raise NotImplementedError

    def prepare(
        self, records: Sequence[ImageRecord], body: nn.Module, context: Preparation
    ) -> None:
        """Train the teacher on the bags of all images but the tested; keep its scores of all."""
        path = context.folder / "teacher.npz"
        if not path.exists():
            dataset = TeacherDataset(body, records, self.config)
            teacher = fit_teacher(
                dataset,
                self.config.teacher,
                seed=context.seed,
                report=context.report,
                learnt=[n for n, r in enumerate(records) if r.info.id not in context.tested],
            )
            scores: dict[int, ProposalScores] = {}
            for record, example in zip(records, dataset, strict=True):
                ids = [annotation.id for annotation in record.annotations]
                scores |= zip(ids, score_proposals(teacher, example), strict=True)
                if context.should_stop():
                    raise Stopped("stopped on request in teacher, which starts again")
            write_proposal_scores(path, scores)
        self.collate.proposal_scores = read_proposal_scores(path)

    def forward(
        self, batch: Batch, features: list[Tensor], output: object, step: Step | None = None
    ) -> PseudoLabels:
        """The selected masks as labels.

        On a GPU the host waits once: for the indices of the selected masks, which it then decodes.
        """
        config = self.config.refine
        bags = self.collate(batch.samples)
        guides = None
        if step is not None and config.enabled and step.fraction >= config.warmup:
            guides = self.guides(batch, features)
        result = self.select(batch, bags, features, step)
        wanted = [result.selected] if result.further is None else [result.selected, result.further]
        index, *further = async_to_host(*wanted)()
        counts = [len(sample.record.bags) for sample in batch.samples]
        assignment = [
            mask_grid(sample, part.numpy(), batch.mask_size, MASK_STRIDE)
            for sample, part in zip(batch.samples, index.split(counts), strict=True)
        ]
        masks = [to_device(mask, batch.images.device) for mask in assignment]
        boxes = list(result.boxes.split(counts))

        def mask_losses(objects: ObjectMasks) -> dict[str, Tensor]:
            if guides is None:
                return {}
            loss = self.refinement_loss(features, guides, masks, boxes, objects)
            return {"aff": config.loss_weight * loss}

        weights = None
        if exponent := self.config.mil.quality_weight:
            quality = result.expected_iou.detach().clamp(0, 1) ** exponent
            weights = list(quality.split(counts))
        return PseudoLabels(
            classes=list(bags.labels.split(counts)),
            assignment=assignment,
            masks=masks,
            boxes=boxes,
            weights=weights,
            further_masks=self.further_masks(batch, further[0], counts) if further else None,
            further_weight=self.config.mil.mps_weight,
            losses=result.losses,
            mask_losses=mask_losses,
            selection=Selection(index, result.posterior, result.expected_iou, result.learned),
            undecided=result.undecided,
        )

    def further_masks(self, batch: Batch, picks: Tensor, counts: list[int]) -> list[Tensor]:
        """The masks of `further_picks` of each image, (N, 3, h, w) bool; empty where there is none.

        A confirmed mask has a bag of its own alone, and so no others.
        """
        out = []
        for sample, part in zip(batch.samples, picks.split(counts), strict=True):
            columns = [
                mask_grid(sample, column.clamp(min=0).numpy(), batch.mask_size, MASK_STRIDE)
                & (column >= 0)[:, None, None]
                for column in part.unbind(1)
            ]
            out.append(to_device(torch.stack(columns, dim=1), batch.images.device))
        return out

    def guides(self, batch: Batch, features: list[Tensor]) -> list[Guides]:
        """The guides of each image's masks at stride 4; building their trees begins here."""
        return [
            affinity_guides(
                image, [level[i] for level in features], batch.mask_size, self.config.refine
            )
            for i, image in enumerate(batch.images)
        ]

    def refinement_loss(
        self,
        features: list[Tensor],
        guides: list[Guides],
        masks: list[Tensor],
        boxes: list[Tensor],
        objects: ObjectMasks,
    ) -> Tensor:
        """L_aff (Eq. 26) over the images of the batch."""
        terms = []
        per_image = zip(objects.probs, objects.drawn, guides, masks, boxes, strict=True)
        for probs, rows, along, mask, own in per_image:
            windows = own[rows] / MASK_STRIDE
            refined = refine(probs[rows], along, boxes=windows, config=self.config.refine)
            areas = mask[rows].flatten(1).sum(1)
            terms.append(affinity_loss(probs[rows], refined, windows, areas))
        total = torch.stack(terms).sum() if terms else features[0].sum()  # of no image: 0
        return total / global_sum(len(terms))

    def refinements(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[Rle | None]:
        """A finer mask of each annotation of an image than the selected one, where there is one."""
        rows, probs, selection = objects.drawn[0].tolist(), objects.probs[0], labels.selection
        assert selection is not None
        return refined_masks(batch, features, selection, rows, probs, self.config)

    def masks_to_draw(self, batch: Batch, labels: PseudoLabels) -> Tensor:
        """What the segmenter is expected to draw of an image's objects, (N, h, w) at stride 4."""
        return labels.masks[0]

    def deliver(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[PseudoMask]:
        """The pseudo-masks of one image, with their features and alternatives.

        A confirmed mask is delivered as it is; else the selected one or its refinement.
        """
        (sample,) = batch.samples
        record, selection = sample.record, labels.selection
        assert selection is not None
        selected = selection.index.tolist()
        posterior = selection.posterior.cpu().numpy()
        expected_iou = selection.expected_iou.tolist()
        rows, probs = objects.drawn[0].tolist(), objects.probs[0]
        refined = self.refinements(batch, features, labels, objects)
        scores = [] if objects.scores is None else objects.scores[0].tolist()
        expected = self.masks_to_draw(batch, labels)
        out = []
        for n, annotation in enumerate(record.annotations):
            bag = record.bags[n]
            if annotation.mask is not None:
                out.append(confirmed(annotation, annotation.mask))
                continue
            predicted = None
            if n in rows:
                predicted = float(overlap_of(probs[n], expected[n][None].to(probs))[0])
            mask = deliver(annotation, bag, selected[n], refined[n], self.config, predicted)
            features_of_mask = {
                **mask.mask_features,
                "certainty": expected_iou[n],
                "predicted": predicted,
                "seen": scores[n] if n in rows and scores else None,
                **compute_mask_features(
                    mask.segmentation,
                    annotation,
                    record.annotations,
                    bag,
                    selected[n],
                    posterior[n],
                    self.collate.proposal_scores.get(annotation.id),
                ),
            }
            out.append(
                msgspec.structs.replace(
                    mask,
                    mask_features=features_of_mask,
                    alternatives=alternatives(bag, selected[n], posterior[n]),
                )
            )
        return out
