"""One imputation on many processes and machines, under engines that exist: torchrun, Dask, Ray Data.

All of them do the same. A leader says what there is to do in a folder beside the output that all workers see; workers
look at lots of tiles, fit one imputer to each group of sensors, fill lot after lot and write rows of the output, in any
order and as often as they like; the leader puts together what was seen, and writes those formats that take their rows
in order only (all but .npy and .zarr). Whoever is killed, the next one goes on, and the result is the bits of a single
process. None of the scheduling is done here.

torchrun, whose processes share lots and groups in turn and are started again with `--max-restarts`::

    torchrun --nproc-per-node 8 --max-restarts 3 -m fastimpute impute year.zarr filled.zarr --memory 4GB

Dask, on the workers of a scheduler or within a larger computation on arrays (`fastimpute.distributed.dask`)::

    fastimpute impute year.zarr filled.zarr --scheduler tcp://head:8786
    filled = fi.dask.impute(xarray.open_zarr("year.zarr").speed)

Ray Data needs no module here: its actors take a `Share`, and its rows are numbers of groups and of lots::

    import ray
    import fastimpute as fi
    from fastimpute.distributed.share import Share
    from fastimpute.files import Reading
    from fastimpute.stream.lots import lots
    from fastimpute.stream.run import run
    from fastimpute.stream.workers import Workers

    source, target = Path("/shared/year.zarr"), Path("/shared/filled.zarr")

    class Worker:
        def __init__(self, share):
            self.share = share

        def __call__(self, row):
            return {"cells": getattr(self.share, row["kind"])(row["number"]).cells}

    class Actors(Workers):
        count = 4

        def fit(self, job, verbose):
            self.map(job, "fit", job.tiles.groups)

        def fill(self, job, verbose):
            self.map(job, "fill", len(lots(job.tiles, self.count)))

        def map(self, job, kind, count):
            share = Share(partial(Reading().open, source), job.wish, job.folder.path, self.count)
            rows = ray.data.from_items([{"kind": kind, "number": number} for number in range(count)])
            rows.map(Worker, fn_constructor_args=[share], concurrency=self.count).materialize()

    fi.impute_file(source, target, fi.SPIRITImputer(random_state=0), runner=partial(run, workers=Actors()))
"""
