#pragma once

#include <pybind11/pybind11.h>

// Each adds its part to the Python module `_cuda`.
void bind_diffusion(pybind11::module_& m);
void bind_unrolled_attention_cuda(pybind11::module_& m);
void bind_gaussian_cuda(pybind11::module_& m);
