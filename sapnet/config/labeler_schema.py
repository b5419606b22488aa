"""The settings of the labelers: selection, teacher, refinement, P2Seg. Imports no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MilConfig:
    """Proposal selection: PSM, PDG, PNPG, SRM, BMS, SASD (Eqs 1-13, Algorithms 1 and 2).

    What runs comes first (the rows of the ladder, Table 6), then features, what the segmenter
    learns, and the stages. Priors are exponents on the selection score, and 0 is off.

    Attributes:
        rule: what selects; all but "learned" learn nothing.
        point_distance: PDG, guidance by the distance to other points of the class.
        refinement: SRM, the second selection.
        positives, negatives: PNPG, further proposals that SRM learns from.
        box_mining: BMS, larger boxes that the bag likes too.
        completeness: SASD, the share of the object that a proposal covers.
        fc_channels: of the two layers on the features of a proposal.
        roi_sampling: samples a side of each cell of RoIAlign.
        normalize_features: unit length for the features of a proposal.
        quality_weight: an object counts in the segmenter's losses by the expected IoU of its mask,
            to this power; 0 counts all alike.
        mps: the segmenter learns the best, median and worst of each bag, too (SAPNet's supplement,
            Eq. 11); for `sapnet` alone.
        mps_weight: of these together, beside the selected mask.
        softmax_over_k: the paper's class scores (Eq. 1), blind to the background.
        instance_branch: scores within a bag; null takes them where there are two classes or more.
        psm_weight: of PSM's loss.
        distance_exponent: d of Eq. 2.
        exclude_foreign_points: select no proposal that holds another point of the same class,
            while the bag has one that holds none.
        positive_scales: v of Eq. 4, by which a box is grown and shrunk.
        background_negatives: boxes that are drawn in an image.
        background_iou: their highest IoU with any proposal.
        part_negatives: smaller boxes that are drawn in each object's.
        part_iou: their highest IoU with it.
        negative_loss: "focal" is the paper's, "cross_entropy" asks for the background itself.
        alpha: of SRM's positive loss beside the negative one (Eq. 8).
        gamma: of the focal loss (Eq. 5).
        mining_top_k: proposals that box mining looks at.
        mining_iou: T_min1 of Algorithm 2, IoU from which a larger box is merged.
        mining_containing_iou: T_min2, the same for a box that holds the selected one.
        completeness_top_k: proposals whose features are the context (Eq. 9).
        completeness_weight: of SASD's loss.
        completeness_warmup: the share of the steps before SASD counts in the selection.
        completeness_floor: lowest factor that it gives a score; the paper's is 0.
        prior_medoid: of the mean IoU with the rest of the bag.
        prior_confidence: of the generator's confidence.
        prior_area: of the area of a mask's box, as a share of the bag's largest.
        prior_tight: of the share of the object's box that the box of a mask covers.
        prior_inside: of the share of a mask that lies in the object's box.
        prior_contrast: of the teacher's contrast, where there is a teacher.
        prior_overlap: of the overlap with the teacher's own mask.
    """

    rule: Literal["learned", "confidence", "consensus", "box"] = "learned"
    point_distance: bool = True
    refinement: bool = True
    positives: bool = True
    negatives: bool = True
    box_mining: bool = True
    completeness: bool = True
    fc_channels: int = 1024
    roi_sampling: int = 2
    normalize_features: bool = False
    quality_weight: float = 0.0
    mps: bool = False
    mps_weight: float = 0.25
    softmax_over_k: bool = False
    instance_branch: bool | None = True
    psm_weight: float = 0.25
    distance_exponent: float = 0.015
    exclude_foreign_points: bool = True
    positive_scales: tuple[float, ...] = (0.05, 0.1, 0.15)
    background_negatives: int = 500
    background_iou: float = 0.3
    part_negatives: int = 6
    part_iou: float = 0.5
    negative_loss: Literal["focal", "cross_entropy"] = "focal"
    alpha: float = 0.25
    gamma: float = 2.0
    mining_top_k: int = 3
    mining_iou: float = 0.6
    mining_containing_iou: float = 0.3
    completeness_top_k: int = 3
    completeness_weight: float = 1.0
    completeness_warmup: float = 0.1
    completeness_floor: float = 0.25
    prior_medoid: float = 0.0
    prior_confidence: float = 0.0
    prior_area: float = 0.0
    prior_tight: float = 4.0
    prior_inside: float = 2.0
    prior_contrast: float = 0.0
    prior_overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A small segmenter on frozen features that learns from all bags before training begins.

    Its figures for each proposal are priors of the selection.

    Attributes:
        enabled: whether there is one.
        epochs: over the images, and at least `min_steps` steps.
        min_steps: see `epochs`.
        batch_size: images a step.
        learning_rate: of its optimizer.
        channels: of its features; a multiple of 4.
        hidden: width of the layers that each point is read by.
        cells: side of the window that it sees.
        points_per_image: drawn per step.
        held, free: a cell counts as object where at least this share of a bag's masks holds it, as
            ground where at most this share does.
        agreement: the exponent of its own overlap in the posterior that its mask learns from.
        warmup: the share of the steps after which `agreement` counts.
    """

    enabled: bool = False
    epochs: int = 4
    min_steps: int = 150
    batch_size: int = 4
    learning_rate: float = 2e-3
    channels: int = 32
    hidden: int = 16
    cells: int = 32
    points_per_image: int = 24
    held: float = 0.8
    free: float = 0.05
    agreement: float = 8.0
    warmup: float = 0.3


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """MLAR (Eqs 14-26), for training targets and pseudo-masks alike.

    Attributes:
        enabled: whether anything is refined.
        levels: which terms.
        feature_levels: which FPN levels make the semantic one (those that are not given are left
            out).
        use_global, use_local: the two steps.
        zeta_global: a number is zeta itself, in the guide's unit; "auto" takes zeta² from the
            median edge of the tree.
        zeta_scale: with "auto", zeta² of the image over that median.
        zeta_scale_semantic: the same on features, which are smooth when resized: most edges are
            near the median.
        zeta_local: of the image (in its unit, standard deviations of ImageNet).
        zeta_semantic: of unit-length features.
        iterations, blocks, mix: the local cascade (Eq. 25).
        window: pixels farther than this share of its box from an object are left out; null is the
            whole image (the paper's).
        balance: how far object and ground have equal say whatever their areas; 0 is the paper's.
        warmup: the share of the steps before the loss sets in.
        loss_weight: of the loss against refined masks.
        polish: how often the image alone refines the pseudo-masks again, after both terms did.
    """

    enabled: bool = True
    levels: Literal["pixel", "semantic", "both"] = "both"
    feature_levels: tuple[int, ...] = (0, 1, 2)
    use_global: bool = True
    use_local: bool = True
    zeta_global: float | Literal["auto"] = "auto"
    zeta_scale: float = 0.7
    zeta_scale_semantic: float = 0.2
    zeta_local: float = 0.15
    zeta_semantic: float = 0.3
    iterations: int = 1
    blocks: int = 2
    mix: float = 0.5
    window: float | None = 0.1
    balance: float = 0.5
    warmup: float = 1 / 6
    loss_weight: float = 1.0
    polish: int = 1


@dataclass(frozen=True, slots=True)
class P2SegConfig:
    """Mutual distillation of a semantic and an instance map (the method `p2seg`).

    Attributes:
        object_from, ground_to: a pixel is painted as an object where the mask that its bag expects
            is at least this, as ground where all of them are at most that.
        least_part: the smallest connected part that offsets are learned from, pixels of the image.
        channels, embedding: of the three heads, and of the cells whose inner products are
            affinities.
        hardest: the share of the pixels that the semantic loss is of.
        s2i_weight, i2s_weight: of the two losses.
        offset_weight: of the offsets' in the first.
        instance_to_semantic: whether there is the second; off is the ablation.
        exponent: of an affinity (beta).
        reach: how far apart two cells at stride 16 may be to have one.
        warmup: the share of the steps before the instance map changes the semantic one.
    """

    object_from: float = 0.5
    ground_to: float = 0.1
    least_part: float = 50.0
    channels: int = 64
    embedding: int = 32
    hardest: float = 0.1
    s2i_weight: float = 1.0
    i2s_weight: float = 1.0
    offset_weight: float = 0.01
    instance_to_semantic: bool = True
    exponent: float = 1.0
    reach: int = 8
    warmup: float = 1 / 3


@dataclass(frozen=True, slots=True)
class SimConfig:
    """Masks from boxes (the method `sim`).

    Attributes:
        copy: what pseudo-masks come from: "ema", a momentum copy, which is delivered too; "self",
            the segmenter itself, a third cheaper.
        horizon: of the copy's average, a share of the steps.
        warmup: the share of the steps in which only low-level cues are learned from.
        unboxed_from: the share of the steps from which on objects without a box are learned from.
        projection_weight: of the projection of masks on the sides of their boxes.
        dilation: how far apart the two cells of a pair are.
        alike: colour similarity from which on a pair is asked to agree.
        pseudo_weight: of the loss against pseudo-masks (lambda 1).
        alpha: share of the instance map in them; the rest is the semantic one.
        high, low: thresholds of object and ground in them.
        instance_exponent: how far candidates are preferred whose box is the object's (mu).
        tau: temperature of the semantic map.
        prototypes: of a class, at most.
        ground: prototypes of ground; 0 is the printed form, without them.
        rare: objects per prototype; classes of fewer share theirs.
        pixels: of a group and batch that prototypes follow, at most.
        epsilon, rounds: of the Sinkhorn iteration.
    """

    copy: Literal["ema", "self"] = "ema"
    horizon: float = 0.11
    warmup: float = 0.11
    unboxed_from: float = 1 / 3
    projection_weight: float = 1.0
    dilation: int = 2
    alike: float = 0.3
    pseudo_weight: float = 0.5
    alpha: float = 0.5
    high: float = 0.7
    low: float = 0.3
    instance_exponent: float = 5.0
    tau: float = 0.3
    prototypes: int = 10
    ground: int = 10
    rare: int = 8
    pixels: int = 1024
    epsilon: float = 0.05
    rounds: int = 3
