package healthcheck

import (
	"context"
	"errors"
	"time"
)

// keyView is what is known of the leader's key, from reads and from a watch.
type keyView struct {
	sure     bool      // known holds something
	seen     bool      // the key was there once
	known    leaderKey // the latest, by whichever way
	watched  leaderKey // as the watch knows it
	revision int64     // at which the watch does
}

// told takes in a change that the watch tells, or what was read just before it
// begins. Like check it returns what is new, or "".
func (v *keyView) told(r reading) (news string) {
	v.watched, v.revision = r.key, r.revision
	return v.learn(r.key)
}

// check compares a read with what the watch has told. Where they differ, the
// watch is late, or it missed a change; unless it knows something newer.
func (v *keyView) check(r reading) (agrees bool, news string) {
	if v.watched == r.key || v.revision > r.revision {
		return true, ""
	}
	return false, v.learn(r.key)
}

func (v *keyView) learn(k leaderKey) (news string) {
	was, first := v.known, !v.sure
	v.sure, v.known, v.seen = true, k, v.seen || k.there
	switch {
	case first, k == was:
	case !k.there:
		news = "leader key is gone, was " + printable(was.leader, maxText)
	case k.leader == was.leader:
		news = "leader key was made anew by " + printable(k.leader, maxText)
	default:
		news = "leader key is now " + printable(k.leader, maxText)
	}
	return news
}

// errMissed ends a watch that was silent about a change.
var errMissed = errors.New("the watch missed a change that a read has shown")

// session watches at one member until that fails or ctx is done. settled tells
// whether it was of use.
func (e *Etcd) session(ctx context.Context, m *etcdMember) (settled bool, err error) {
	g := &gateway{member: m, key: []byte(e.key), user: e.cfg.User, password: e.password, limit: e.pace.question}
	first, err := g.read(ctx)
	if err != nil {
		return false, err
	}
	e.note(ctx, func(v *keyView) string { return v.told(first) })
	// From the next revision on: nothing in between is lost.
	w, err := g.watch(ctx, first.revision+1)
	if err != nil {
		return false, err
	}
	e.watching(m)
	ended := make(chan error, 1)
	go func() {
		ended <- e.listen(ctx, w)
		close(ended)
	}()
	settled, err = e.attend(ctx, g, ended)
	w.close()
	for range ended { // until listen has returned
	}
	return settled, err
}

// listen passes on what the watch tells, until it ends.
func (e *Etcd) listen(ctx context.Context, w *etcdWatch) error {
	for {
		events, err := w.next()
		if err != nil {
			return err
		}
		e.note(ctx, func(v *keyView) (news string) {
			for _, event := range events {
				if text := v.told(event); text != "" {
					news = text // one hint will do
				}
			}
			return news
		})
	}
}

// attend sees to it that the watch lives, until it ends or ctx is done.
func (e *Etcd) attend(ctx context.Context, g *gateway, ended <-chan error) (settled bool, err error) {
	settle, reread := time.NewTimer(e.pace.settle), time.NewTimer(jittered(e.pace.reread))
	defer settle.Stop()
	defer reread.Stop()
	for {
		select {
		case err := <-ended:
			return settled, err
		case <-settle.C:
			settled = true
			e.settled()
		case <-reread.C:
			if err := e.reread(ctx, g); err != nil {
				return settled, err
			}
			reread.Reset(jittered(e.pace.reread))
		case <-ctx.Done():
			return settled, ctx.Err()
		}
	}
}

// reread reads the key. A watch that then does not say the same in time is dead.
func (e *Etcd) reread(ctx context.Context, g *gateway) error {
	r, err := g.read(ctx)
	if err != nil {
		return err
	}
	agrees := false
	check := func(v *keyView) (news string) {
		agrees, news = v.check(r)
		return news
	}
	e.note(ctx, check)
	if agrees {
		return nil
	}
	sleep(ctx, e.pace.grace)
	if e.note(ctx, check); !agrees {
		return errMissed
	}
	return nil
}
