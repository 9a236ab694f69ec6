#pragma once

#include <pybind11/pybind11.h>

// The part of the binding that belongs to unrolled_attention.
void bind_unrolled_attention(pybind11::module_& m);
