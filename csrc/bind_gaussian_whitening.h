#pragma once

#include <pybind11/pybind11.h>

// The part of the binding that belongs to gaussian_whitening.
void bind_gaussian_whitening(pybind11::module_& m);
