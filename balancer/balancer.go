// Package balancer is the owner: it knows which server gets the next session
// and which sessions must die. One goroutine writes its state; everybody else
// sends it values and reads snapshots.
package balancer
