// Package netlab makes networks out of Linux network namespaces, for tests and
// benchmarks that need hosts of their own: nothing in the machine's own network
// changes. It makes namespaces, joins them by cables (veth pairs), gives them
// addresses and routes, and removes all of it, with whatever still runs there.
// What the network looks like, and what runs in it, is its users' business.
package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Prefix begins the name of each namespace and temporary directory of this
// process: the kind of run, and the pid, so that a later run can tell what was
// left behind.
func Prefix(kind string) string { return prefix(kind) + strconv.Itoa(os.Getpid()) + "-" }

func prefix(kind string) string { return "pointsman-" + kind + "-" }

// Lab is the namespaces of one run.
type Lab struct {
	prefix string
	made   []*Namespace
}

// New returns a lab without a namespace yet.
func New(kind string) *Lab { return &Lab{prefix: Prefix(kind)} }

// Namespace makes a network namespace that `ip netns` knows by the lab's
// prefix and name. Its lo is up. It needs root.
func (l *Lab) Namespace(name string) (*Namespace, error) {
	n := &Namespace{Name: l.prefix + name}
	err := andBack(func() (err error) {
		n.ns, err = netns.NewNamed(n.Name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making namespace %s: %w", n.Name, err)
	}
	l.made = append(l.made, n)
	if err := n.open(); err != nil {
		return nil, err
	}
	return n, n.SetUp("lo")
}

// Close kills whatever runs in the namespaces and removes them.
func (l *Lab) Close() error {
	names := make([]string, len(l.made))
	for i, n := range l.made {
		n.Close()
		names[i] = n.Name
	}
	l.made = nil
	return remove(names)
}

// remove ends what runs in namespaces of ours, and removes them.
func remove(names []string) error {
	var errs []error
	mounted := map[uint64]bool{} // by inode
	for _, name := range names {
		ns, ok, err := mountedAt(name)
		errs = append(errs, err)
		if ok {
			mounted[ns.Ino] = true
		}
	}
	for range 100 { // a process may fork while we look; 5 s are plenty for SIGKILL
		pids := pidsIn(mounted)
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, name := range names {
		_, ok, err := mountedAt(name)
		switch {
		case err != nil:
		case ok:
			err = netns.DeleteNamed(name)
		default: // never mounted: the run died in between
			err = os.Remove("/run/netns/" + name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("removing namespace %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// mountedAt returns the namespace that is mounted under a name, if one is. It
// is never our own, in which nothing shall be killed.
func mountedAt(name string) (ns unix.Stat_t, ok bool, err error) {
	var own unix.Stat_t
	err = errors.Join(unix.Stat("/run/netns/"+name, &ns), unix.Stat("/proc/thread-self/ns/net", &own))
	return ns, err == nil && ns.Dev == own.Dev && ns.Ino != own.Ino, err
}

// pidsIn are the processes of others in any of the namespaces, by their inodes:
// they are all on the one file system that the kernel has for namespaces. Our
// own may seem to be there while its first thread is.
func pidsIn(namespaces map[uint64]bool) (pids []int) {
	if len(namespaces) == 0 {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir+"/ns/net", &st) != nil || !namespaces[st.Ino] {
			continue
		}
		if pid, _ := strconv.Atoi(filepath.Base(dir)); pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Sweep removes the namespaces and temporary directories that runs of the kind
// have left when they died, and returns their names.
func Sweep(kind string) (swept []string, err error) {
	left := func(dir string) (names []string) {
		paths, _ := filepath.Glob(filepath.Join(dir, prefix(kind)+"*"))
		for _, path := range paths {
			name := filepath.Base(path)
			pid, _, _ := strings.Cut(strings.TrimPrefix(name, prefix(kind)), "-")
			if _, err := os.Stat("/proc/" + pid); err != nil {
				names = append(names, name)
			}
		}
		return names
	}
	namespaces, dirs := left("/run/netns"), left(os.TempDir())
	errs := []error{remove(namespaces)}
	for _, name := range dirs {
		dir := filepath.Join(os.TempDir(), name)
		_ = unix.Unmount(dir, unix.MNT_DETACH) // most are no mount, and it fails
		errs = append(errs, os.RemoveAll(dir))
	}
	return append(namespaces, dirs...), errors.Join(errs...)
}
