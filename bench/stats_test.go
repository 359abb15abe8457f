package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{1, 1, 1, 1, 1000}, 1},
	} {
		given := slices.Clone(c.values)
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
		if !slices.Equal(given, c.values) {
			t.Errorf("median changed its argument: %v is now %v", given, c.values)
		}
	}
}

// Every value falls into a bucket that ends at it or above it, by 1/32 at most.
func TestBuckets(t *testing.T) {
	last := -1
	for _, v := range []uint64{0, 1, 31, 32, 63, 64, 65, 66, 127, 128, 1000, 12_345, 1 << 20, 3_000_000_000, math.MaxInt64, math.MaxUint64} {
		i := bucketOf(v)
		end := bucketEnd(i)
		if end < v || end-v > v/32 {
			t.Errorf("%d is in bucket %d, which ends at %d", v, i, end)
		}
		if i < last {
			t.Errorf("%d is in bucket %d, below that of a smaller value", v, i)
		}
		last = i
		if bucketOf(end) != i {
			t.Errorf("bucket %d ends at %d, which is in bucket %d", i, end, bucketOf(end))
		}
		if end != math.MaxUint64 && bucketOf(end+1) != i+1 {
			t.Errorf("bucket %d ends at %d, but %d is in bucket %d", i, end, end+1, bucketOf(end+1))
		}
	}
	if size := len(histogram{}.buckets); last != size-1 {
		t.Errorf("the highest value is in bucket %d of %d", last, size)
	}
}

func TestQuantile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h histogram
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(math.Exp(random.Float64()*15)) * time.Microsecond
		h.add(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := values[int(q*float64(len(values))+0.5)-1]
		if got := h.quantile(q); got < want || got > want+want/32 {
			t.Errorf("quantile %g is %s, of the sorted values %s", q, got, want)
		}
	}
	if got := new(histogram).quantile(0.99); got != 0 {
		t.Errorf("the quantile of nothing is %s", got)
	}
}
