use super::*;
use crate::transport::{BroadcastError, CloseCode, ConnectError, Disconnect};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A machine and its time.
struct Scene {
    machine: Machine,
    begin: Instant,
    now: Instant,
}

impl Scene {
    fn new(give_up_after: Option<Duration>) -> Self {
        let begin = Instant::now();
        Self {
            machine: Machine::new(begin, give_up_after),
            begin,
            now: begin,
        }
    }

    fn after(&mut self, time: Duration, event: Event) -> Option<Task> {
        self.now += time;
        self.machine.handle(self.now, event, 0.5)
    }

    fn lost(&mut self, reason: LossReason) -> Option<Task> {
        self.after(Duration::ZERO, Event::Over(Verdict::Again(reason)))
    }

    /// Waits for the next attempt, and gives for how long.
    fn retry(&mut self) -> Duration {
        let deadline = self.machine.deadline().expect("it is tried again");
        let wait = deadline - self.now;
        assert_eq!(self.after(wait / 2, Event::Deadline), None, "not before");
        assert_eq!(
            self.after(wait - wait / 2, Event::Deadline),
            Some(Task::Dial)
        );
        wait
    }

    /// Goes the way to the broadcast.
    fn find(&mut self) {
        assert_eq!(self.after(ms(10), Event::Connected), Some(Task::Find));
        assert_eq!(self.after(ms(10), Event::Found), Some(Task::Follow));
        assert!(self.machine.state().is_up());
    }
}

#[test]
fn it_dials_finds_and_follows_and_begins_again() {
    let mut scene = Scene::new(None);
    assert!(matches!(scene.machine.state(), SubscriberState::Connecting));
    scene.find();
    scene.after(ms(100), Event::Flows);
    assert_eq!(scene.lost(LossReason::Stopped), Some(Task::Pause));
    let state = scene.machine.state().clone();
    assert!(
        matches!(&state, SubscriberState::Lost { reason: LossReason::Stopped, retry_at, .. } if *retry_at > scene.now)
    );
    assert_eq!(scene.retry(), Backoff::FIRST);
    scene.find();
}

#[test]
fn what_the_publisher_has_instead_is_said_while_it_is_waited_for() {
    let mut scene = Scene::new(None);
    assert_eq!(scene.after(ms(1), Event::Published(vec![])), None);
    assert!(matches!(scene.machine.state(), SubscriberState::Connecting));
    scene.after(ms(10), Event::Connected);
    assert!(matches!(
        scene.machine.state(),
        SubscriberState::Waiting { published: None }
    ));
    scene.after(ms(3000), Event::Published(vec!["garden".to_owned()]));
    assert!(scene.machine.state().to_string().contains("garden"));
}

#[test]
fn ended_refused_and_failed_are_final() {
    let error = || Arc::new(SubscribeError::from(ConnectError::Shutdown));
    for event in [
        Event::Ended,
        Event::Closed,
        Event::Over(Verdict::Refused(error())),
        Event::Over(Verdict::Failed(error())),
    ] {
        let mut scene = Scene::new(Some(ms(1000)));
        scene.find();
        assert_eq!(scene.after(ms(10), event), Some(Task::Stop));
        assert!(scene.machine.state().is_final());
        assert_eq!(scene.machine.deadline(), None);
        let before = scene.machine.state().to_string();
        for event in [Event::Found, Event::Connected, Event::Deadline] {
            assert_eq!(scene.after(ms(5000), event), None);
        }
        scene.lost(LossReason::Stopped);
        assert_eq!(scene.machine.state().to_string(), before);
    }
}

#[test]
fn only_media_begins_the_waits_anew() {
    // Whether the broadcast was found, whether media came, and for how long it was there.
    for (found, flowed, long, anew) in [
        (false, false, true, false),
        (true, false, false, false),
        (true, true, false, true),
        (true, false, true, true),
    ] {
        let mut scene = Scene::new(None);
        let waits = [0, 1, 2].map(|_| {
            if found {
                scene.find();
            }
            if flowed {
                scene.after(ms(1), Event::Flows);
            }
            scene.now += if long { ms(9000) } else { ms(500) };
            scene.lost(LossReason::Stopped);
            scene.retry()
        });
        assert_eq!(waits[2] == waits[0], anew, "{found} {flowed} {long}");
    }
}

fn is_new(scene: &Scene) -> bool {
    matches!(
        scene.machine.state(),
        SubscriberState::Lost { is_new: true, .. }
    )
}

#[test]
fn each_reason_of_an_outage_is_warned_of_once() {
    let mut scene = Scene::new(None);
    let mut warned = Vec::new();
    for n in [0, 1, 0, 1, 2, 3, 4, 5] {
        scene.lost(LossReason::Failed(n.to_string()));
        warned.extend(is_new(&scene).then_some(n));
        scene.retry();
    }
    assert_eq!(warned.len(), MAX_REASONS, "however many there are");
    scene.find();
    scene.after(ms(1), Event::Flows);
    scene.lost(LossReason::Failed("0".to_owned()));
    assert!(is_new(&scene), "that is another outage");
}

fn given_up(scene: &Scene) -> (Duration, LossReason) {
    let SubscriberState::Failed(error) = scene.machine.state() else {
        panic!("{:?}", scene.machine.state());
    };
    let SubscribeError::GaveUp { after, reason } = &**error else {
        panic!("{error}");
    };
    (*after, reason.clone())
}

#[test]
fn it_gives_up_after_the_time_that_it_is_told() {
    let limit = ms(1000);
    // On the way to the publisher.
    let mut scene = Scene::new(Some(limit));
    assert_eq!(scene.machine.deadline(), Some(scene.begin + limit));
    assert_eq!(scene.after(limit, Event::Deadline), Some(Task::Stop));
    assert!(matches!(given_up(&scene), (after, LossReason::Unreachable(_)) if after == limit));
    // With the publisher, which has something else.
    let mut scene = Scene::new(Some(limit));
    scene.after(ms(100), Event::Connected);
    assert_eq!(scene.after(ms(900), Event::Deadline), Some(Task::Stop));
    assert_eq!(given_up(&scene).1, LossReason::NotPublished);
    // Between two attempts.
    let mut scene = Scene::new(Some(limit));
    scene.lost(LossReason::WrongIdentity);
    scene.retry();
    scene.lost(LossReason::WrongIdentity);
    scene.retry();
    scene.lost(LossReason::WrongIdentity);
    let deadline = scene.machine.deadline().expect("there is one");
    assert_eq!(deadline, scene.begin + limit, "before the next attempt");
    scene.now = deadline;
    assert_eq!(scene.after(ms(0), Event::Deadline), Some(Task::Stop));
    assert_eq!(given_up(&scene).1, LossReason::WrongIdentity);
}

#[test]
fn the_time_without_the_broadcast_begins_when_it_is_lost() {
    let limit = ms(1000);
    let mut scene = Scene::new(Some(limit));
    scene.find();
    assert_eq!(scene.machine.deadline(), None);
    scene.now += ms(60_000);
    scene.lost(LossReason::Stopped);
    let lost = scene.now;
    scene.retry();
    assert_eq!(scene.machine.deadline(), Some(lost + limit));
    scene.find();
    assert_eq!(scene.machine.deadline(), None);
}

#[test]
fn media_that_stops_and_goes_on_is_said() {
    let mut scene = Scene::new(None);
    let last = scene.begin;
    scene.after(ms(1), Event::Stalls(last));
    assert!(matches!(scene.machine.state(), SubscriberState::Connecting));
    scene.find();
    assert_eq!(scene.after(ms(500), Event::Stalls(last)), None);
    assert!(
        matches!(scene.machine.state(), SubscriberState::Stalled { last_frame } if *last_frame == last)
    );
    assert_eq!(scene.machine.deadline(), None, "it is not lost");
    assert_eq!(scene.after(ms(500), Event::Flows), None);
    assert!(matches!(scene.machine.state(), SubscriberState::Up));
    scene.after(ms(500), Event::Stalls(last));
    assert_eq!(scene.lost(LossReason::Stopped), Some(Task::Pause));
}

#[test]
fn a_broadcast_that_is_replaced_is_followed_at_once_if_something_came_of_it() {
    let mut scene = Scene::new(None);
    scene.find();
    scene.after(ms(1), Event::Flows);
    assert_eq!(scene.after(ms(1), Event::Replaced), Some(Task::Dial));
    scene.find();
    assert_eq!(scene.after(ms(1), Event::Replaced), Some(Task::Pause));
}

#[test]
fn what_another_attempt_may_mend_is_told_from_what_it_may_not() {
    let again = |verdict: Verdict| matches!(verdict, Verdict::Again(_));
    let refused = |verdict: Verdict| matches!(verdict, Verdict::Refused(_));
    let name = || "movie".to_owned();
    assert!(refused(Verdict::from(ConnectError::Refused {
        reason: name()
    })));
    assert!(again(Verdict::from(ConnectError::Busy { reason: name() })));
    assert!(again(Verdict::from(ConnectError::NoAnswer(ms(10_000)))));
    assert!(matches!(
        Verdict::from(ConnectError::Shutdown),
        Verdict::Failed(_)
    ));
    assert!(refused(Verdict::from(BroadcastError::NotAllowed(name()))));
    assert!(again(Verdict::from(BroadcastError::NotFound(name()))));
}

#[test]
fn what_is_still_read_of_a_broadcast_that_is_gone_is_no_media_of_the_next_attempt() {
    let mut scene = Scene::new(Some(ms(60_000)));
    scene.find();
    scene.after(ms(1), Event::Flows);
    scene.lost(LossReason::Stopped);
    let lost = scene.now;
    scene.after(ms(50), Event::Flows);
    assert_eq!(scene.retry(), Backoff::FIRST - ms(50));
    scene.after(ms(10), Event::Flows);
    scene.after(ms(9000), Event::Connected);
    scene.after(ms(10), Event::Flows);
    scene.lost(LossReason::Stopped);
    assert!(!is_new(&scene), "that is the same outage");
    assert_eq!(scene.retry(), Backoff::FIRST * 2);
    assert_eq!(scene.machine.deadline(), Some(lost + ms(60_000)));
}

#[test]
fn media_that_nobody_waits_for_any_more_has_not_stalled() {
    let mut scene = Scene::new(None);
    scene.find();
    scene.machine.take_change();
    assert_eq!(scene.after(ms(1), Event::Idle), None);
    assert!(!scene.machine.take_change(), "it had not stalled");
    scene.after(ms(500), Event::Stalls(scene.begin));
    assert_eq!(scene.after(ms(100), Event::Idle), None);
    assert!(matches!(scene.machine.state(), SubscriberState::Up));
    // Nothing came of it.
    scene.lost(LossReason::Stopped);
    scene.retry();
    scene.find();
    scene.lost(LossReason::Stopped);
    assert_eq!(scene.retry(), Backoff::FIRST * 2);
}

#[test]
fn a_time_beyond_all_time_is_never() {
    let mut scene = Scene::new(Some(Duration::MAX));
    assert_eq!(scene.machine.deadline(), None);
    scene.lost(LossReason::Stopped);
    scene.retry();
}

#[test]
fn a_session_that_only_the_publisher_needed_is_made_again_without_a_word() {
    let mut scene = Scene::new(None);
    scene.after(ms(10), Event::Connected);
    assert_eq!(scene.after(ms(2000), Event::LeftUnused), Some(Task::Dial));
    assert!(matches!(scene.machine.state(), SubscriberState::Connecting));
}

#[test]
fn how_a_session_ended_says_whether_another_attempt_may_mend_it() {
    let verdict = |end: Disconnect| Verdict::from(&end);
    let remote = |code| verdict(Disconnect::remote(code, "said"));
    assert!(matches!(
        remote(CloseCode::DONE),
        Verdict::Again(LossReason::Stopped)
    ));
    assert!(matches!(remote(CloseCode::REFUSED), Verdict::Refused(_)));
    let busy = remote(CloseCode::BUSY);
    assert!(matches!(busy, Verdict::Again(LossReason::Busy(_))));
    let full = remote(CloseCode::LIMIT);
    assert!(matches!(full, Verdict::Again(LossReason::Full(_))));
    let over = verdict(Disconnect::local(CloseCode::LIMIT, "too many"));
    assert!(matches!(over, Verdict::Failed(error) if error.to_string().contains("too many")));
    assert!(matches!(
        verdict(Disconnect::lost("gone")),
        Verdict::Again(LossReason::ConnectionLost(_))
    ));
    let full = ConnectError::Full {
        reason: String::new(),
    };
    assert!(matches!(
        Verdict::from(full),
        Verdict::Again(LossReason::Full(_))
    ));
}

#[test]
fn a_publisher_that_does_not_answer_is_dialled_all_the_time() {
    let mut scene = Scene::new(None);
    let away = || LossReason::Unreachable("no answer".to_owned());
    for _ in 0..60 {
        scene.now += ms(10_000);
        assert_eq!(scene.lost(away()), Some(Task::Pause));
        assert_eq!(scene.retry(), Backoff::FIRST);
    }
    // Where dialling fails at once, there is a wait between two attempts.
    scene.lost(away());
    assert_eq!(scene.retry(), Backoff::LONGEST);
}
