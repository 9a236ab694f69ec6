"""One imputation on many processes and machines, under engines that exist: torchrun, Dask, Ray Data."""
