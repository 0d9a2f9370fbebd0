"""What in the training data made the model say this: curvature, solvers, influence, retraining."""

from jaxplain.training.curvature import empirical_fisher, fisher, gauss_newton, hessian, hvp
from jaxplain.training.groups import group_influence, newton_step_removal
from jaxplain.training.influence import influence, influence_on_params, removal_effect, self_influence
from jaxplain.training.low_rank import lanczos, nystrom, nystrom_preconditioner
from jaxplain.training.operators import Operator, mean_eigenvalue, relative
from jaxplain.training.perturbation import influence_of_perturbation, influence_of_replacement
from jaxplain.training.retraining import leave_one_out, linear_datamodeling_score, subset_retraining
from jaxplain.training.similarity import grad_cos, grad_dot, representer_points, tracin
from jaxplain.training.solve import Preconditioner, SolveInfo, Solver, SolveWarning, cg, dense, warn_about
from jaxplain.training.stochastic import lissa, neumann

__all__ = [
    "Operator",
    "Preconditioner",
    "SolveInfo",
    "SolveWarning",
    "Solver",
    "cg",
    "dense",
    "empirical_fisher",
    "fisher",
    "gauss_newton",
    "grad_cos",
    "grad_dot",
    "group_influence",
    "hessian",
    "hvp",
    "influence",
    "influence_of_perturbation",
    "influence_of_replacement",
    "influence_on_params",
    "lanczos",
    "leave_one_out",
    "linear_datamodeling_score",
    "lissa",
    "mean_eigenvalue",
    "neumann",
    "newton_step_removal",
    "nystrom",
    "nystrom_preconditioner",
    "relative",
    "removal_effect",
    "representer_points",
    "self_influence",
    "subset_retraining",
    "tracin",
    "warn_about",
]
