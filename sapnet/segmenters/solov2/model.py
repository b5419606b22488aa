"""SOLOv2 as a segmenter: backbone, pyramid and head."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sapnet.data.batch import ObjectMasks, PseudoLabels
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.base import Instances, Segmenter
from sapnet.segmenters.solov2.decode import decode
from sapnet.segmenters.solov2.head import SoloHead, SoloOutput
from sapnet.segmenters.solov2.loss import (
    candidate_means,
    cell_candidates,
    class_loss,
    instance_probs,
    solo_loss,
)
from sapnet.segmenters.solov2.targets import SoloTargets, assign


class SoloV2(Segmenter):
    """SOLOv2 (Wang et al. 2020). What answers for an object are grid cells near its centre."""

    per_class = ("head.conv_cls.",)

    def __init__(self, backbone: BackboneWithFpn, head: SoloHead) -> None:
        super().__init__(backbone)
        self.head = head

    def forward(self, images: Tensor) -> tuple[list[Tensor], SoloOutput]:
        """images: (B, 3, H, W) as `BackboneWithFpn.forward` wants them -> (P2..P6, output)."""
        features = self.backbone(images)
        return features, self.head(features)

    def loss(
        self, output: SoloOutput, labels: PseudoLabels
    ) -> tuple[dict[str, Tensor], ObjectMasks]:
        """Return "mask" and "cls" of `solo_loss`, and the mean of what each object's cells draw."""
        targets = self.targets(output, labels)
        if labels.by_candidates:
            loss, _ = class_loss(output, targets, self.head.config, labels.weights)
            return {"cls": loss}, self._by_candidates(output, labels, targets)
        losses, probs = solo_loss(
            output,
            targets,
            labels.masks,
            self.head.config,
            pixel_weights=labels.pixel_weights,
            weights=labels.weights,
            further=labels.further_masks,
            further_weight=labels.further_weight,
        )
        return losses, ObjectMasks(probs, [target.answered for target in targets])

    @torch.no_grad()
    def object_masks(self, output: SoloOutput, labels: PseudoLabels) -> ObjectMasks:
        """The masks of each object's cells; its score is the best of theirs for its class."""
        logits = output.flat_cls_logits()
        targets = self.targets(output, labels)
        objects = None
        if labels.by_candidates:
            objects = self._by_candidates(output, labels, targets)
        probs, drawn, scores = [], [], []
        for i, target in enumerate(targets):
            count = len(labels.classes[i])
            if objects is None:
                probs.append(instance_probs(output, i, target, count))
            drawn.append(target.answered)
            cells = logits[i][target.cells, target.classes[target.cells]].float().sigmoid()
            best = cells.new_zeros(count)
            scores.append(best.scatter_reduce(0, target.instances, cells, "amax"))
        if objects is not None:
            return replace(objects, scores=scores)
        return ObjectMasks(probs, drawn, scores)

    def pixel_features(self, output: SoloOutput) -> Tensor:
        """The mask features, which kernels make masks of, (B, E, H/4, W/4)."""
        return output.mask_features

    def _by_candidates(
        self, output: SoloOutput, labels: PseudoLabels, targets: Sequence[SoloTargets]
    ) -> ObjectMasks:
        drawn = [target.answered for target in targets]
        candidates = [cell_candidates(output, i, target) for i, target in enumerate(targets)]
        probs = [
            candidate_means(of_image, len(classes), target)
            for of_image, classes, target in zip(candidates, labels.classes, targets, strict=True)
        ]
        return ObjectMasks(probs, drawn, candidates=candidates)

    def targets(self, output: SoloOutput, labels: PseudoLabels) -> list[SoloTargets]:
        """The cells of each image, on the output's device."""
        head, device = self.head, output.mask_features.device
        made = [
            assign(masks, classes, head.config, head.num_classes)
            for masks, classes in zip(labels.assignment, labels.classes, strict=True)
        ]
        return [target.to(device) for target in made]

    def decode(
        self,
        output: SoloOutput,
        sizes: Sequence[tuple[int, int]],
        original_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """See `sapnet.segmenters.solov2.decode.decode`."""
        return decode(output, sizes, original_sizes, self.head.config)
