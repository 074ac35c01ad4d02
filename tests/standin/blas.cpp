// cuBLAS products as loops, and the few cuRAND functions that candle calls when it opens a device.
#include "standin.h"
#include "scalar.cuh"
#include <utility>

namespace {

struct Matrix {
    memory::Address at;
    int transposed, ld;
    long long stride;
};

// Count of numbers from the first number of the first matrix to one past the last number of the
// last.
size_t extent(const Matrix &m, int rows, int columns, int batch) {
    const int across = m.transposed ? rows : columns, down = m.transposed ? columns : rows;
    return size_t(batch - 1) * size_t(m.stride) + size_t(across - 1) * size_t(m.ld) + size_t(down);
}

// C = alpha · A·B + beta · C in column-major order. Operands have type E and are widened to A; sums
// are f64.
template <class E, class A, class T>
void product(void *stream, int m, int n, int k, A alpha, Matrix a, Matrix b, A beta, Matrix c,
             int batch) {
    if (m <= 0 || n <= 0 || k <= 0 || batch <= 0)
        fail_run("invalid product: m = %d, n = %d, k = %d, batch = %d", m, n, k, batch);
    const int least_a = a.transposed ? k : m, least_b = b.transposed ? n : k;
    if (a.ld < least_a || b.ld < least_b || c.ld < m)
        fail_run("a product's leading dimension is too small: %d, %d, %d", a.ld, b.ld, c.ld);
    memory::check(c.at, extent(c, m, n, batch) * sizeof(T), "a product's result");
    streams::on_access(stream, c.at, "a product's result is written");
    if (alpha != 0) {
        memory::check(a.at, extent(a, m, k, batch) * sizeof(E), "a product's first operand");
        memory::check(b.at, extent(b, k, n, batch) * sizeof(E), "a product's second operand");
        streams::on_access(stream, a.at, "a product's first operand is read");
        streams::on_access(stream, b.at, "a product's second operand is read");
    }
    for (int g = 0; g < batch; ++g) {
        const E *from_a = reinterpret_cast<const E *>(a.at) + g * a.stride;
        const E *from_b = reinterpret_cast<const E *>(b.at) + g * b.stride;
        T *to = reinterpret_cast<T *>(c.at) + g * c.stride;
        for (int j = 0; j < n; ++j)
            for (int i = 0; i < m; ++i) {
                double sum = 0;
                for (int l = 0; alpha != 0 && l < k; ++l) {
                    const E x = from_a[a.transposed ? size_t(i) * a.ld + l : size_t(l) * a.ld + i];
                    const E y = from_b[b.transposed ? size_t(l) * b.ld + j : size_t(j) * b.ld + l];
                    sum += double(widen(x)) * double(widen(y));
                }
                T &old = to[size_t(j) * c.ld + i];
                // With factor 0, C is not read.
                const A term = beta == 0 ? A(0) : beta * widen(old);
                narrow(A(double(alpha) * sum) + term, old);
            }
    }
}

} // namespace

extern "C" {

int cublasCreate_v2(void **handle) {
    *handle = new void *(nullptr);
    return 0;
}
int cublasDestroy_v2(void *handle) {
    delete static_cast<void **>(handle);
    return 0;
}
int cublasSetStream_v2(void *handle, void *stream) {
    *static_cast<void **>(handle) = stream;
    return 0;
}

int cublasGemmStridedBatchedEx(void *handle, int how_a, int how_b, int m, int n, int k,
                               const void *alpha, const void *a, int type_a, int lda,
                               long long stride_a, const void *b, int type_b, int ldb,
                               long long stride_b, const void *beta, void *c, int type_c, int ldc,
                               long long stride_c, int batch, int compute, int) {
    const auto at = [](const void *p) { return reinterpret_cast<memory::Address>(p); };
    const Matrix ma{at(a), how_a, lda, stride_a}, mb{at(b), how_b, ldb, stride_b};
    const Matrix mc{at(c), 0, ldc, stride_c};
    const auto as = [&](auto of, auto computed, auto to) {
        using A = decltype(computed);
        const auto [x, y] = std::pair(static_cast<const A *>(alpha), static_cast<const A *>(beta));
        product<decltype(of), A, decltype(to)>(*static_cast<void **>(handle), m, n, k, *x, ma, mb,
                                               *y, mc, batch);
    };
    const auto types = [&](int operands, int result) {
        return type_a == operands && type_b == operands && type_c == result;
    };
    // CUDA_R_32F is 0, CUDA_R_64F 1, CUDA_R_16BF 14; CUBLAS_COMPUTE_32F is 68, CUBLAS_COMPUTE_64F
    // 70. TF32 (77) rounds its operands, which no loop here does.
    if (types(0, 0) && (compute == 68 || compute == 77))
        as(0.0f, 0.0f, 0.0f);
    else if (types(1, 1) && compute == 70)
        as(0.0, 0.0, 0.0);
    else if (types(14, 14) && compute == 68)
        as(Bf16{}, 0.0f, Bf16{});
    else if (types(14, 0) && compute == 68)
        as(Bf16{}, 0.0f, 0.0f);
    else
        fail_run("a product of types %d, %d, %d computed as %d", type_a, type_b, type_c, compute);
    return 0;
}

int curandCreateGenerator(void **generator, int) {
    *generator = new char;
    return 0;
}
int curandDestroyGenerator(void *generator) {
    delete static_cast<char *>(generator);
    return 0;
}
int curandSetStream(void *, void *) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
int curandSetGeneratorOffset(void *, unsigned long long) { return 0; }

} // extern "C"
