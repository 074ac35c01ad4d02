// GPU driver of row operations, the counterpart of cpu.rs and rows.rs.
//
// blockDim.x threads, a multiple of 32, process a row of n numbers. A *tile* is what they hold
// together: 16 bytes of the value, and as many of each tangent, per thread; that is W numbers. One
// tile of each operand stays in registers, so a row that fits one tile is read from memory once.
// The rest of a longer row is read again from the cache. If rows and pointers are multiples of 16
// bytes, accesses are 16 bytes wide. Otherwise they are single numbers, with neighbouring threads
// at neighbouring columns.
//
// With blockDim.x = 32 a block may process blockDim.y rows, one per warp. Otherwise blockDim.y = 1.
// Sums have a fixed order: the columns of a thread from left to right, a butterfly over its warp,
// then the warps in order. The order depends only on n and blockDim.x.
#pragma once
#include "scalar.cuh"

// Maximum threads per block. Leaves 128 registers per thread on every GPU since sm_70.
constexpr int ROW_THREADS = 512;

// Numbers of one tile per thread.
template <class E> constexpr int pack_width = 16 / sizeof(E);

template <class S, int W> struct Pack {
    S lane[W];
};

// Two sums computed in one pass.
template <class S> struct Two {
    S first, second;
};
template <class S> __device__ __forceinline__ Two<S> operator+(const Two<S> &a, const Two<S> &b) {
    return {a.first + b.first, a.second + b.second};
}

__device__ __forceinline__ bool aligned(const void *p) {
    return (reinterpret_cast<size_t>(p) & 15) == 0;
}

// W numbers at a 16-byte aligned address.
template <int W, class X> __device__ __forceinline__ void load_wide(const X *p, X (&to)[W]) {
#pragma unroll
    for (int i = 0; i < int(W * sizeof(X) / 16); ++i) {
        const uint4 part = reinterpret_cast<const uint4 *>(p)[i];
        memcpy(to + i * 16 / sizeof(X), &part, 16);
    }
}
template <int W, class X> __device__ __forceinline__ void store_wide(X *p, const X (&from)[W]) {
#pragma unroll
    for (int i = 0; i < int(W * sizeof(X) / 16); ++i) {
        uint4 part;
        memcpy(&part, from + i * 16 / sizeof(X), 16);
        reinterpret_cast<uint4 *>(p)[i] = part;
    }
}

// An operand: value and tangents of this row, numbers of type X, and the tile in registers. Tangent
// k is `plane` numbers after tangent k − 1. A null tangent is zero.
template <class X, int K, int W> struct Input {
    const X *value, *tangent;
    size_t plane;
    Pack<Dual<arithmetic<X>, K>, W> cached;
};

template <class E, int K> struct Row {
    using A = arithmetic<E>;
    using S = Dual<A, K>;
    static constexpr int W = pack_width<E>;
    template <class X> using In = Input<X, K, W>;

    size_t rows, row;
    int n, tiles;
    // Tiles that this block writes. The first one is in registers.
    int begin, end;
    bool wide;

    // Row `row`. With `tile` < 0 this block writes the whole row, otherwise only that tile.
    template <class... P>
    __device__ __forceinline__ Row(size_t rows, size_t row, int n, int tile, P... pointers)
        : rows(rows), row(row), n(n) {
        const int step = W * blockDim.x;
        tiles = (n + step - 1) / step;
        begin = tile < 0 ? 0 : tile;
        end = tile < 0 ? tiles : tile + 1;
        wide = n % W == 0 && (aligned(pointers) && ...);
    }

    // Column of number j of this thread's part of a tile.
    __device__ __forceinline__ int column(int tile, int j) const {
        const int t = threadIdx.x, all = blockDim.x;
        return wide ? W * (t + all * tile) + j : t + all * (W * tile + j);
    }

    template <class X>
    __device__ __forceinline__ Pack<S, W> load(const In<X> &x, int tile) const {
        Pack<S, W> pack;
#pragma unroll
        for (int k = 0; k <= K; ++k) {
            const X *from = k == 0 ? x.value : x.tangent;
            const bool present = from != nullptr;
            if (k > 1) from += (k - 1) * x.plane;
            X raw[W];
            if (wide && present && column(tile, 0) < n) {
                alignas(16) X whole[W];
                load_wide<W>(from + column(tile, 0), whole);
#pragma unroll
                for (int j = 0; j < W; ++j) raw[j] = whole[j];
            } else {
#pragma unroll
                for (int j = 0; j < W; ++j) {
                    const int c = column(tile, j);
                    raw[j] = !wide && present && c < n ? from[c] : X{};
                }
            }
#pragma unroll
            for (int j = 0; j < W; ++j) pack.lane[j].part[k] = widen(raw[j]);
        }
        return pack;
    }

    // This row of an operand with `rows` rows.
    __device__ __forceinline__ In<E> input(const E *value, const E *tangent) const {
        In<E> x{value + row * n, tangent ? tangent + row * n : nullptr, rows * n, {}};
        x.cached = load(x, begin);
        return x;
    }
    // The row of this row's group of `each` rows, of an operand with a row per group.
    __device__ __forceinline__ In<E> group(const E *value, const E *tangent, int each) const {
        const size_t at = row / each * n;
        In<E> x{value + at, tangent ? tangent + at : nullptr, rows / each * n, {}};
        x.cached = load(x, begin);
        return x;
    }
    // The single row of a parameter, in the arithmetic type.
    __device__ __forceinline__ In<A> shared(const A *value, const A *tangent) const {
        In<A> x{value, tangent, size_t(n), {}};
        x.cached = load(x, begin);
        return x;
    }
    template <class X>
    __device__ __forceinline__ Pack<S, W> tile_of(const In<X> &x, int tile) const {
        return tile == begin ? x.cached : load(x, tile);
    }

    // Column c of this row, with tangents. The row has `len` columns.
    __device__ __forceinline__ S single(const E *value, const E *tangent, int c, int len) const {
        S y;
        const size_t at = row * len + c;
        y.part[0] = widen(value[at]);
#pragma unroll
        for (int k = 1; k <= K; ++k)
            y.part[k] = tangent ? widen(tangent[(k - 1) * rows * len + at]) : A(0);
        return y;
    }
    __device__ __forceinline__ void put_single(E *value, E *tangent, const S &y) const {
        if (threadIdx.x != 0) return;
        narrow(y.part[0], value[row]);
#pragma unroll
        for (int k = 1; k <= K; ++k) narrow(y.part[k], tangent[(k - 1) * rows + row]);
    }

    // Σ f(column, x…) over the row, returned to all its threads.
    template <class F, class... X> __device__ __forceinline__ auto sum(F f, const X &...x) const {
        using R = decltype(f(0, x.cached.lane[0]...));
        R total{};
        for (int tile = 0; tile < tiles; ++tile) add_tile(total, tile, f, tile_of(x, tile)...);
        A parts[sizeof(R) / sizeof(A)];
        memcpy(parts, &total, sizeof total);
        reduce<sizeof(R) / sizeof(A)>(parts, Plus{});
        memcpy(&total, parts, sizeof total);
        return total;
    }
    // Maximum of f(column, x…) over the row, with zero tangents.
    template <class F, class... X> __device__ __forceinline__ S detached_max(F f, const X &...x) const {
        A most = -A(INFINITY);
        for (int tile = 0; tile < tiles; ++tile) max_tile(most, tile, f, tile_of(x, tile)...);
        reduce<1>(&most, Max{});
        return S::constant(most);
    }
    // y = f(column, x…) over this block's tiles.
    template <class F, class... X>
    __device__ __forceinline__ void write(E *y, E *ty, F f, const X &...x) const {
        for (int tile = begin; tile < end; ++tile) {
            const Pack<S, W> pack = map_tile(tile, f, tile_of(x, tile)...);
            store(y, ty, tile, pack);
        }
    }
    // f(column, x…) on the tile in registers; zero beyond the row.
    template <class F, class... X>
    __device__ __forceinline__ Pack<S, W> map_cached(F f, const X &...x) const {
        return map_tile(begin, f, x.cached...);
    }
    __device__ __forceinline__ void store(E *y, E *ty, int tile, const Pack<S, W> &pack) const {
#pragma unroll
        for (int k = 0; k <= K; ++k) {
            E *to = (k == 0 ? y : ty + (k - 1) * rows * n) + row * n;
            if (wide) {
                if (column(tile, 0) >= n) continue;
                alignas(16) E raw[W];
#pragma unroll
                for (int j = 0; j < W; ++j) narrow(pack.lane[j].part[k], raw[j]);
                store_wide<W>(to + column(tile, 0), raw);
            } else {
#pragma unroll
                for (int j = 0; j < W; ++j) {
                    const int c = column(tile, j);
                    if (c < n) narrow(pack.lane[j].part[k], to[c]);
                }
            }
        }
    }

  private:
    struct Plus {
        __device__ __forceinline__ A operator()(A a, A b) const { return a + b; }
    };
    struct Max {
        __device__ __forceinline__ A operator()(A a, A b) const { return a > b ? a : b; }
    };

    template <class R, class F, class... P>
    __device__ __forceinline__ void add_tile(R &total, int tile, F f, const P &...x) const {
#pragma unroll
        for (int j = 0; j < W; ++j) {
            const int c = column(tile, j);
            if (c < n) total = total + f(c, x.lane[j]...);
        }
    }
    template <class F, class... P>
    __device__ __forceinline__ void max_tile(A &most, int tile, F f, const P &...x) const {
#pragma unroll
        for (int j = 0; j < W; ++j) {
            const int c = column(tile, j);
            if (c < n) most = Max{}(f(c, x.lane[j]...).part[0], most);
        }
    }
    template <class F, class... P>
    __device__ __forceinline__ Pack<S, W> map_tile(int tile, F f, const P &...x) const {
        Pack<S, W> pack;
#pragma unroll
        for (int j = 0; j < W; ++j) {
            const int c = column(tile, j);
            pack.lane[j] = c < n ? f(c, x.lane[j]...) : S::constant(A(0));
        }
        return pack;
    }
    // Reduces COUNT numbers over the row's threads. Scratch: COUNT numbers per warp.
    template <int COUNT, class F> __device__ __forceinline__ void reduce(A *x, F combine) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
#pragma unroll
            for (int o = 16; o > 0; o >>= 1) x[i] = combine(x[i], __shfl_xor_sync(~0u, x[i], o));
        const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
        if (warps == 1) return;
        DYN_SHARED(A, scratch);
        __syncthreads(); // all threads have read the previous reduction
        if (threadIdx.x % 32 == 0)
#pragma unroll
            for (int i = 0; i < COUNT; ++i) scratch[warp * COUNT + i] = x[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            x[i] = scratch[i];
            for (int w = 1; w < warps; ++w) x[i] = combine(x[i], scratch[w * COUNT + i]);
        }
    }
};

// The row of this warp or block, for kernels with one row each.
__device__ __forceinline__ size_t own_row() {
    return size_t(blockIdx.x) * blockDim.y + threadIdx.y;
}

// The range of rows that a block sums over.
struct Range {
    size_t from, to;
    __device__ __forceinline__ explicit Range(size_t rows) {
        const size_t each = (rows + gridDim.x - 1) / gridDim.x;
        from = min(rows, size_t(blockIdx.x) * each);
        to = min(rows, from + each);
    }
};

// Writes one tile of a block's sums over its rows, (1 + K, n), to slot `slot` of `slots`.
template <class E, int K>
__device__ __forceinline__ void
put_partial(arithmetic<E> *partial, int n, int slot, int slots, int tile,
            const Pack<Dual<arithmetic<E>, K>, pack_width<E>> &sums, bool wide) {
    constexpr int W = pack_width<E>;
    arithmetic<E> *to = partial + (size_t(blockIdx.x) * slots + slot) * (K + 1) * n;
    const int t = threadIdx.x, all = blockDim.x;
#pragma unroll
    for (int j = 0; j < W; ++j) {
        const int c = wide ? W * (t + all * tile) + j : t + all * (W * tile + j);
        if (c < n)
#pragma unroll
            for (int k = 0; k <= K; ++k) to[size_t(k) * n + c] = sums.lane[j].part[k];
    }
}

template <class S, int W>
__device__ __forceinline__ void accumulate(Pack<S, W> &sums, const Pack<S, W> &terms) {
#pragma unroll
    for (int j = 0; j < W; ++j) sums.lane[j] = sums.lane[j] + terms.lane[j];
}
