package healthcheck

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkEtcdHint is the time from a change of the key, by put and by delete
// in turn, to the hint: from when etcd is asked for it, which includes the
// connect and its write to the disk, and from when it has said that it is done.
func BenchmarkEtcdHint(b *testing.B) {
	etcd := startEtcd(b, nil)
	w := watchEtcd(b, defaultEtcdPace, nil, etcd.url)
	w.connected()
	g := &gateway{member: &etcdMember{addr: strings.TrimPrefix(etcd.url, "http://"), host: "etcd"}, limit: 5 * time.Second}
	heard := make(chan time.Time)
	go func() {
		for range w.hints {
			heard <- time.Now()
		}
	}()
	defer func() { w.end(); close(w.hints) }()
	type change struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value,omitempty"`
	}
	var asked, done []time.Duration
	var answer struct{}
	for i := 0; b.Loop(); i++ {
		path, question := "/v3/kv/put", change{[]byte(testKey), []byte("postgres-1")}
		if i%2 == 1 {
			path, question = "/v3/kv/deleterange", change{Key: []byte(testKey)}
		}
		start := time.Now()
		if err := g.ask(b.Context(), path, question, &answer); err != nil {
			b.Fatal(err)
		}
		end := time.Now()
		at := <-heard
		asked, done = append(asked, at.Sub(start)), append(done, max(0, at.Sub(end)))
		time.Sleep(20 * ms) // each by itself, as in life
	}
	report := func(name string, list []time.Duration) {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-median-ms")
		b.ReportMetric(float64(list[len(list)-1].Microseconds())/1000, name+"-worst-ms")
	}
	report("asked", asked)
	report("done", done)
	b.ReportMetric(0, "ns/op")
}
