"""A small network that learns from all bags together, before training, to score each proposal.

A bag's masks disagree, but not everywhere: what all of them hold is object, what none holds is
ground. A small point-conditioned segmenter over the backbone's frozen features learns these two
from every bag of the dataset, and so what an object's inside looks like beside its surroundings.
Its figures for each proposal join the selection score as priors.
"""

from sapnet.labelers.sapnet.teacher.cache import read_proposal_scores, write_proposal_scores
from sapnet.labelers.sapnet.teacher.dataset import TeacherDataset
from sapnet.labelers.sapnet.teacher.score import overlap_of, score_proposals
from sapnet.labelers.sapnet.teacher.train import fit_teacher, teacher_steps

__all__ = [
    "TeacherDataset",
    "fit_teacher",
    "overlap_of",
    "read_proposal_scores",
    "score_proposals",
    "teacher_steps",
    "write_proposal_scores",
]
