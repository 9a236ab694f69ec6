"""Who does the work of a run."""

from __future__ import annotations

from fastimpute.progress import progress
from fastimpute.stream.job import Job, fill_lots, fit_models
from fastimpute.stream.lots import lots
from fastimpute.stream.output import Output
from fastimpute.stream.survey import Survey


class Workers:
    """This process, alone. Where several share the work each of these is called in the leader, in this order.

    Attributes:
        count: how many share the work.
    """

    count = 1

    def look(self, survey: Survey, verbose: bool) -> None:
        """Look at all lots of a survey."""
        with progress("scanning", survey.cells, cells=survey.cells, verbose=verbose) as advance:
            survey.look(range(len(survey.lots)), advance)

    def fit(self, job: Job, verbose: bool) -> None:
        """Fit all models."""
        with progress("fitting", job.tiles.groups, verbose=verbose) as advance:
            fit_models(job, range(job.tiles.groups), advance)

    def fill(self, job: Job, verbose: bool) -> None:
        """Fill all tiles."""
        cells = job.source.header.rows * job.source.header.sensors
        with progress("imputing", cells, done=job.finished_cells, cells=cells, verbose=verbose) as advance:
            fill_lots(job, lots(job.tiles, self.count), advance)

    def write(self, output: Output, verbose: bool) -> None:
        """Write all rows of a table that takes them in any order."""
        cells = output.job.source.header.rows * output.job.source.header.sensors
        with progress("writing", cells, cells=cells, verbose=verbose) as advance:
            for pieces in output.shares(self.count):
                output.write(pieces, advance)
