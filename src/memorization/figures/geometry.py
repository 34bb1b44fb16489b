"""Figures of paper `geometry`, one function each; they are in modules by subject."""

from memorization.figures.geometry_more import fig7, fig8, fig9_10, tab7, tab8, x_choices
from memorization.figures.geometry_post import fig5, fig14
from memorization.figures.geometry_pretraining import fig2, fig3, fig11, tab9, x_third_phase
from memorization.figures.geometry_toy import fig4, fig12, fig13

__all__ = [
    "fig2",
    "fig3",
    "fig4",
    "fig5",
    "fig7",
    "fig8",
    "fig9_10",
    "fig11",
    "fig12",
    "fig13",
    "fig14",
    "tab7",
    "tab8",
    "tab9",
    "x_choices",
    "x_third_phase",
]
