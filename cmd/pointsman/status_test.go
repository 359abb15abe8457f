package main

import (
	"strings"
	"testing"
	"time"

	"pointsman/balancer"
)

func TestStatusOfDCS(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		d    balancer.DCSStatus
		want string
	}{
		{balancer.DCSStatus{Since: ago(2 * time.Second)}, "dcs etcd, /s/x/leader: NOT WATCHED for 2s, not read yet\n"},
		{balancer.DCSStatus{Endpoint: "http://h:1", Since: ago(3 * time.Hour), Known: true, Exists: true, Leader: "postgres-1"},
			"dcs etcd, /s/x/leader: watched at http://h:1 for 3h, leader postgres-1\n"},
		{balancer.DCSStatus{Endpoint: "http://h:1", Since: ago(time.Minute), Known: true, Changed: ago(5 * time.Second), Error: "http://g:1: Layer7 timeout", Failed: ago(time.Minute)},
			"dcs etcd, /s/x/leader: watched at http://h:1 for 1m, no such key, changed 5s ago\n  1m ago: http://g:1: Layer7 timeout\n"},
	} {
		tt.d.Name, tt.d.Key = "etcd", "/s/x/leader"
		var out strings.Builder
		if err := printStatus(&out, &balancer.Snapshot{Taken: now, Started: now, DCS: []balancer.DCSStatus{tt.d}}, false); err != nil || !strings.HasSuffix(out.String(), "\n\n"+tt.want) {
			t.Errorf("%v, %q, want %q", err, out.String(), tt.want)
		}
	}
}
