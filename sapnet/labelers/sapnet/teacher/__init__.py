"""What the bags of all images say together of each proposal, learned in a minute, before training.

A bag's masks disagree, but not everywhere: what all of them hold is object, what none holds is
ground. A small point-conditioned segmenter over the backbone's frozen features learns these two
from every bag of the data set, and so what an object's inside looks like beside its surroundings.
Its figures for each proposal join the selection score as priors.
"""

from sapnet.labelers.sapnet.teacher.cache import read_judgements, write_judgements
from sapnet.labelers.sapnet.teacher.dataset import TeacherDataset
from sapnet.labelers.sapnet.teacher.score import judge, overlap_of
from sapnet.labelers.sapnet.teacher.train import fit_teacher, teacher_steps

__all__ = [
    "TeacherDataset",
    "fit_teacher",
    "judge",
    "overlap_of",
    "read_judgements",
    "teacher_steps",
    "write_judgements",
]
