// Dense factorisation and solves in double, once for all instruction sets: included inside the anonymous namespace of
// one of them, with kLanes = its doubles per vector. Matrices are row-major with rows of whole vectors; a row block is
// kLanes rows, so that the diagonal block is one vector wide. Every sum runs over its terms in rising order, whatever
// tile it falls into.

typedef double Vec __attribute__((vector_size(kLanes * 8)));
constexpr int kTileVectors = 3;        // kLanes x 3 accumulators: 24 of 32 registers (AVX-512), 12 of 16 (AVX2)
constexpr double kLeastPivot = 1e-13;  // of the diagonal

[[gnu::always_inline]] static inline Vec load(const double* source) {
    Vec value;
    std::memcpy(&value, source, sizeof(value));
    return value;
}
[[gnu::always_inline]] static inline void store(double* target, Vec value) {
    std::memcpy(target, &value, sizeof(value));
}
[[gnu::always_inline]] static inline Vec splat(double value) { return value - Vec{}; }
[[gnu::always_inline]] static inline double sum_of(Vec value) {
    double sum = value[0];
    for (int lane = 1; lane < kLanes; ++lane) sum += value[lane];
    return sum;
}

// A block of rows in registers.
template <int kVectors>
struct Tile {
    Vec at[kLanes][kVectors];

    [[gnu::always_inline]] inline void read(const double* from, std::int64_t stride) {
#pragma GCC unroll 8
        for (int r = 0; r < kLanes; ++r)
#pragma GCC unroll 3
            for (int c = 0; c < kVectors; ++c) at[r][c] = load(from + r * stride + c * kLanes);
    }
    [[gnu::always_inline]] inline void write(double* to, std::int64_t stride) const {
#pragma GCC unroll 8
        for (int r = 0; r < kLanes; ++r)
#pragma GCC unroll 3
            for (int c = 0; c < kVectors; ++c) store(to + r * stride + c * kLanes, at[r][c]);
    }
    // row r -= sum over p of left[r * left_row + p * left_term] * right row p
    [[gnu::always_inline]] inline void subtract(const double* left, std::int64_t left_row, std::int64_t left_term,
                                                const double* right, std::int64_t stride, std::int64_t terms) {
        for (std::int64_t p = 0; p < terms; ++p) {
            Vec row[kVectors];
#pragma GCC unroll 3
            for (int c = 0; c < kVectors; ++c) row[c] = load(right + p * stride + c * kLanes);
#pragma GCC unroll 8
            for (int r = 0; r < kLanes; ++r) {
                const Vec scale = splat(left[r * left_row + p * left_term]);
#pragma GCC unroll 3
                for (int c = 0; c < kVectors; ++c) at[r][c] -= scale * row[c];
            }
        }
    }
    // U^T rows = rows, with the diagonal block U (reciprocal diagonal in `inverse`).
    [[gnu::always_inline]] inline void solve_down(const double* block, std::int64_t stride, const double* inverse) {
#pragma GCC unroll 8
        for (int r = 0; r < kLanes; ++r) {
#pragma GCC unroll 8
            for (int q = 0; q < r; ++q) add_row(r, q, block[q * stride + r]);
            scale_row(r, inverse[r]);
        }
    }
    // U rows = rows.
    [[gnu::always_inline]] inline void solve_up(const double* block, std::int64_t stride, const double* inverse) {
#pragma GCC unroll 8
        for (int r = kLanes - 1; r >= 0; --r) {
#pragma GCC unroll 8
            for (int q = r + 1; q < kLanes; ++q) add_row(r, q, block[r * stride + q]);
            scale_row(r, inverse[r]);
        }
    }
    [[gnu::always_inline]] inline void add_row(int r, int q, double factor) {
        const Vec scale = splat(factor);
#pragma GCC unroll 3
        for (int c = 0; c < kVectors; ++c) at[r][c] -= scale * at[q][c];
    }
    [[gnu::always_inline]] inline void scale_row(int r, double factor) {
#pragma GCC unroll 3
        for (int c = 0; c < kVectors; ++c) at[r][c] *= splat(factor);
    }
};

// body(first column, Tile<vectors>{}) over columns [begin, end), whole vectors.
template <typename Body>
[[gnu::always_inline]] static inline void for_tiles(std::int64_t begin, std::int64_t end, const Body& body) {
    std::int64_t column = begin;
    for (; column + kTileVectors * kLanes <= end; column += kTileVectors * kLanes) body(column, Tile<kTileVectors>{});
    if (end - column == 2 * kLanes) body(column, Tile<2>{});
    if (end - column == kLanes) body(column, Tile<1>{});
}

// The diagonal block at row `first`: updated, factorised, stored. Its bad pivot, or -1.
[[gnu::always_inline]] static inline std::int64_t factor_diagonal(double* matrix, std::int64_t stride,
                                                                  std::int64_t first, double* inverse) {
    double* block = matrix + first * stride + first;
    double least[kLanes];
    for (int r = 0; r < kLanes; ++r) least[r] = kLeastPivot * block[r * stride + r];
    Tile<1> tile;
    tile.read(block, stride);
    tile.subtract(matrix + first, 1, stride, matrix + first, stride, first);
    std::int64_t bad = -1;
    // Rows are scaled at the end: a root would lengthen the chain from one pivot to the next.
#pragma GCC unroll 8
    for (int r = 0; r < kLanes; ++r) {
        const double pivot = tile.at[r][0][r];
        if (!(pivot > least[r]) && bad < 0) bad = first + r;
        inverse[first + r] = pivot;
        const Vec scaled = tile.at[r][0] * splat(1.0 / pivot);
#pragma GCC unroll 8
        for (int q = r + 1; q < kLanes; ++q) tile.at[q][0] -= splat(scaled[q]) * tile.at[r][0];
    }
#pragma GCC unroll 8
    for (int r = 0; r < kLanes; ++r) {
        inverse[first + r] = 1.0 / __builtin_sqrt(inverse[first + r]);
        tile.scale_row(r, inverse[first + r]);
    }
    tile.write(block, stride);
    return bad;
}

// [A | B] (rows, columns), A symmetric with its upper part given, becomes [U | U^-T B] with A = U^T U. Returns -1, or
// the row whose pivot is not positive.
static inline std::int64_t factor(double* matrix, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                  double* inverse) {
    for (std::int64_t first = 0; first < rows; first += kLanes) {
        const std::int64_t bad = factor_diagonal(matrix, stride, first, inverse);
        if (bad >= 0) return bad;
        const double* block = matrix + first * stride + first;
        for_tiles(first + kLanes, columns, [&](std::int64_t column, auto tile) __attribute__((always_inline)) {
            double* target = matrix + first * stride + column;
            tile.read(target, stride);
            tile.subtract(matrix + first, 1, stride, matrix + column, stride, first);
            tile.solve_down(block, stride, inverse + first);
            tile.write(target, stride);
        });
    }
    return -1;
}

// right (rows, columns) <- U^-1 right.
static inline void solve_up(const double* factored, std::int64_t stride, const double* inverse, std::int64_t rows,
                            double* right, std::int64_t right_stride, std::int64_t columns) {
    for_tiles(0, columns, [&](std::int64_t column, auto tile) __attribute__((always_inline)) {
        for (std::int64_t first = rows - kLanes; first >= 0; first -= kLanes) {
            const std::int64_t after = first + kLanes;
            const double* block = factored + first * stride;
            double* target = right + first * right_stride + column;
            tile.read(target, right_stride);
            tile.subtract(block + after, stride, 1, right + after * right_stride + column, right_stride, rows - after);
            tile.solve_up(block + first, stride, inverse + first);
            tile.write(target, right_stride);
        }
    });
}

// U^-T (rows, rows), lower triangular, a tile of columns at a time in `columns` (rows x kTileVectors vectors), and the
// sums of squares of its columns, the diagonal of (U^T U)^-1. body(begin, first, block, width): the rows from `first`
// on, kLanes of them, of the columns from `begin` on, `width` of them; above row `begin` they are zero.
template <typename Body>
[[gnu::always_inline]] static inline void inverse_tiles(const double* factored, std::int64_t stride,
                                                        const double* inverse, std::int64_t rows, double* columns,
                                                        double* diagonal, const Body& body) {
    for_tiles(0, rows, [&](std::int64_t begin, auto tile) __attribute__((always_inline)) {
        constexpr int kVectors = sizeof(tile) / sizeof(Vec) / kLanes;
        constexpr std::int64_t kColumns = kVectors * kLanes;
        for (std::int64_t i = 0; i < kColumns * kColumns; ++i) columns[i] = 0;
        for (std::int64_t i = 0; i < kColumns; ++i) columns[i * (kColumns + 1)] = 1;
        Vec square[kVectors] = {};
        for (std::int64_t first = begin; first < rows; first += kLanes) {
            double* block = columns + (first - begin) * kColumns;
            if (first < begin + kColumns)
                tile.read(block, kColumns);
            else
                tile = {};
            tile.subtract(factored + begin * stride + first, 1, stride, columns, kColumns, first - begin);
            tile.solve_down(factored + first * stride + first, stride, inverse + first);
            tile.write(block, kColumns);
#pragma GCC unroll 8
            for (int r = 0; r < kLanes; ++r)
#pragma GCC unroll 3
                for (int c = 0; c < kVectors; ++c) square[c] += tile.at[r][c] * tile.at[r][c];
            body(begin, first, block, kColumns);
        }
        for (int c = 0; c < kVectors; ++c) store(diagonal + begin + c * kLanes, square[c]);
    });
}

// out[r * out_row + w] = sum over p of matrix row cells[r] times vector w, for kRows rows and kVectors vectors of
// `size` numbers each.
template <int kRows, int kVectors>
[[gnu::always_inline]] static inline void dot_rows(const double* matrix, std::int64_t size, const std::int64_t* cells,
                                                   const double* vectors, std::int64_t vector_stride, double* out,
                                                   std::int64_t out_row) {
    Vec sum[kRows][kVectors] = {};
    std::int64_t p = 0;
    for (; p + kLanes <= size; p += kLanes) {
        Vec right[kVectors];
#pragma GCC unroll 4
        for (int w = 0; w < kVectors; ++w) right[w] = load(vectors + w * vector_stride + p);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
            const Vec left = load(matrix + cells[r] * size + p);
#pragma GCC unroll 4
            for (int w = 0; w < kVectors; ++w) sum[r][w] += left * right[w];
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int w = 0; w < kVectors; ++w) {
            double total = sum_of(sum[r][w]);
            for (std::int64_t tail = p; tail < size; ++tail)
                total += matrix[cells[r] * size + tail] * vectors[w * vector_stride + tail];
            out[r * out_row + w] = total;
        }
}

// kRows rows by any number of vectors.
template <int kRows>
[[gnu::always_inline]] static inline void dot_block(const double* matrix, std::int64_t size, const std::int64_t* cells,
                                                    const double* vectors, std::int64_t vector_stride,
                                                    std::int64_t count, double* out, std::int64_t out_row) {
    std::int64_t w = 0;
    for (; w + 4 <= count; w += 4)
        dot_rows<kRows, 4>(matrix, size, cells, vectors + w * vector_stride, vector_stride, out + w, out_row);
    for (; w < count; ++w)
        dot_rows<kRows, 1>(matrix, size, cells, vectors + w * vector_stride, vector_stride, out + w, out_row);
}

// Any number of rows and vectors.
static inline void dot_all(const double* matrix, std::int64_t size, const std::int64_t* cells, std::int64_t rows,
                           const double* vectors, std::int64_t vector_stride, std::int64_t count, double* out,
                           std::int64_t out_row) {
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        dot_block<4>(matrix, size, cells + r, vectors, vector_stride, count, out + r * out_row, out_row);
    for (; r < rows; ++r)
        dot_block<1>(matrix, size, cells + r, vectors, vector_stride, count, out + r * out_row, out_row);
}

// Rows [begin, end) of the upper part of source[cells, cells] (source (dim, dim), `count` cells); beyond them, of the
// identity, up to `rows`, a whole number of vectors.
static inline void gather_rows(const double* source, std::int64_t dim, const std::int64_t* cells, std::int64_t count,
                               double* matrix, std::int64_t stride, std::int64_t rows, std::int64_t begin,
                               std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        double* row = matrix + i * stride;
        std::int64_t j = i / kLanes * kLanes;
        if (i < count) {
            const double* from = source + cells[i] * dim;
            for (; j < count; ++j) row[j] = from[cells[j]];
        }
        for (; j < rows; ++j) row[j] = i == j ? 1 : 0;
    }
}
