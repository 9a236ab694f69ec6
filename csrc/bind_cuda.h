#pragma once

#include <pybind11/pybind11.h>

// What of the module `_cuda` has a file of its own.
void bind_unrolled_attention_cuda(pybind11::module_& m);
