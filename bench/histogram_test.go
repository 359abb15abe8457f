package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every value falls into a bucket that ends at it or above it, by 1/128 at most.
func TestBuckets(t *testing.T) {
	last := -1
	for _, v := range []uint64{0, 1, 127, 128, 255, 256, 257, 258, 511, 512, 1000, 12_345, 1 << 20, 3_000_000_000, math.MaxInt64, math.MaxUint64} {
		i := bucketOf(v)
		end := bucketEnd(i)
		if end < v || end-v > v/128 {
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
		if got := h.quantile(q); got < want || got > want+want/128 {
			t.Errorf("quantile %g is %s, of the sorted values %s", q, got, want)
		}
	}
	if got := new(histogram).quantile(0.99); got != 0 {
		t.Errorf("the quantile of nothing is %s", got)
	}
}

// What is written to the file comes back, and rounds add up.
func TestHistogramInJSON(t *testing.T) {
	var a, b, both, back histogram
	for _, d := range []time.Duration{0, 1, 300, 12_345, 12_346, time.Second} {
		a.add(d)
		both.add(d)
		b.add(7 * d)
		both.add(7 * d)
	}
	a.merge(&b)
	text, err := json.Marshal(&a)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back != both || back.count != 12 || a.count != 12 {
		t.Errorf("%d values came back as %s", back.count, text)
	}
	if err := json.Unmarshal([]byte(`"12:x"`), &back); err == nil {
		t.Error("nonsense was read")
	}
}
