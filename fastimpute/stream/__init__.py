"""Tables larger than memory: cut into tiles, imputed in any order by any number of workers, broken off and resumed.

The result is the same bits whatever the memory, the chunks of the files and the number of workers.
"""
