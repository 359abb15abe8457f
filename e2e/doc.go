// Package e2e holds the end-to-end tests: real etcd, Patroni, PostgreSQL and
// HAProxy, each in a network namespace of its own, with pointsman beside
// HAProxy in front of the same cluster and libpq with all hosts as the floor.
// The tests need root and the build tag e2e; README.md says how to run them.
package e2e
