"""Which architectures come into the last round of a search: the best rated, and the strategy's last word."""

from __future__ import annotations

from collections.abc import Callable

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.events import CandidatesRated, ProgressMade, Report
from napari_autosegnet.search.limits import Limits
from napari_autosegnet.search.selection import Finalist
from napari_autosegnet.search.strategies import Strategy
from napari_autosegnet.search.supernet import Supernet
from napari_autosegnet.settings import SearchSettings

#: How many of the best rated architectures of the whole search compete with the last samples.
REMEMBERED = 16
#: With limits, so many architectures are drawn for each that is wanted before the search gives up.
MAX_DRAWS = 20


class Nominations:
    """Rates architectures with the shared weights, and names those that compete.

    Parameters
    ----------
    space : SearchSpace
    settings : SearchSettings
    supernet : Supernet
        The shared weights.
    strategy : Strategy
    limits : Limits
        What is too large or too slow does not compete.

    Attributes
    ----------
    best : dict of Architecture to float
        The best rated ones so far.
    """

    def __init__(
        self, space: SearchSpace, settings: SearchSettings, supernet: Supernet, strategy: Strategy, limits: Limits
    ) -> None:
        self.space = space
        self.settings = settings
        self.supernet = supernet
        self.strategy = strategy
        self.limits = limits
        self.best: dict[Architecture, float] = {}

    @property
    def shares_weights(self) -> bool:
        """Whether there are shared weights that can rate anything."""
        return self.settings.selection.fraction < 1

    def rate(self, architecture: Architecture, patches: int | None) -> float:
        """What a strategy learns from an architecture: its rating, or 0 where it is too large."""
        if not self.limits.is_small_enough(architecture):
            return 0.0
        rating = self.supernet.rate(architecture, patches=patches)
        self.best[architecture] = rating
        if len(self.best) > 4 * REMEMBERED:
            kept = sorted(self.best.items(), key=lambda item: item[1], reverse=True)[:REMEMBERED]
            self.best = dict(kept)
        return rating

    def finalists(self, report: Report, is_time_left: Callable[[], bool], *, rate_new: bool) -> list[Finalist]:
        """The strategy's last word, rated on all validation patches beside the best so far.

        Parameters
        ----------
        report : Report
        is_time_left
            Asked before each rating after the first.
        rate_new : bool
            Otherwise those that were rated already have to do.

        Raises
        ------
        UserError
            When all that was proposed is too large or too slow.
        """
        if self.shares_weights:
            finalists = self._rated_finalists(report, is_time_left, rate_new)
        else:
            # Whoever is proposed first competes.
            proposed = self._propose(self.settings.selection.finalists)
            finalists = [Finalist(each) for each in proposed if self.limits.is_fast_enough(each)]
            if not finalists:
                raise self.limits.refusal()
        if rate_new:
            self._add_plain(finalists)
        return finalists

    def _rated_finalists(self, report: Report, is_time_left: Callable[[], bool], rate_new: bool) -> list[Finalist]:
        ranked = sorted(self.best, key=self.best.__getitem__, reverse=True)[:REMEMBERED]
        ratings = {a: self.best[a] for a in ranked}
        if rate_new:
            ratings = {}
            candidates = dict.fromkeys(ranked + self._propose(self.settings.selection.candidates))
            for architecture in candidates:
                if ratings and not is_time_left():
                    break
                ratings[architecture] = self.supernet.rate(architecture)
                report(ProgressMade(step="candidates rated", done=len(ratings), total=len(candidates)))
        ranked = sorted(ratings, key=ratings.__getitem__, reverse=True)
        if ranked:
            report(CandidatesRated(count=len(ranked), best=ratings[ranked[0]], worst=ratings[ranked[-1]]))
        finalists: list[Finalist] = []
        for architecture in ranked:
            if len(finalists) < self.settings.selection.finalists and self.limits.is_fast_enough(architecture):
                finalists.append(Finalist(architecture, ratings[architecture]))
        if not finalists and rate_new:
            raise self.limits.refusal()
        return finalists

    def _add_plain(self, finalists: list[Finalist]) -> None:
        """Let a plain chain compete in the last one's place: what is found should be better than no search.

        Short trainings prefer what learns fast, so it has to be better by a margin.
        """
        plain, settings = self.space.plain, self.settings.selection
        if not settings.plain_chain or len(finalists) < 2:
            return
        competitor = next((f for f in finalists if f.architecture == plain), None)
        if competitor is None and self.limits.is_small_enough(plain) and self.limits.is_fast_enough(plain):
            rating = self.supernet.rate(plain) if self.shares_weights else None
            competitor = finalists[-1] = Finalist(plain, rating)
        if competitor is not None:
            competitor.margin = settings.plain_margin

    def _propose(self, count: int) -> list[Architecture]:
        """Different architectures of the strategy that are small enough, ``count`` of them if it has so many."""
        proposals: dict[Architecture, None] = {}
        for _ in range(MAX_DRAWS):
            proposed = self.strategy.propose(count)
            proposals |= dict.fromkeys(a for a in proposed if self.limits.is_small_enough(a))
            # Without a limit the first draw is all there is: a collapsed controller has no others.
            if len(proposals) >= count or self.limits.max_parameters is None:
                break
        return list(proposals)[:count]
