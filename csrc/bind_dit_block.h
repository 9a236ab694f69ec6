#pragma once

#include <pybind11/pybind11.h>

// The part of the binding that belongs to dit_block.
void bind_dit_block(pybind11::module_& m);
