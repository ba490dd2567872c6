//! One query for all who ask the same at the same time.
//!
//! An endpoint asks for the addresses of its relays from many places, and again after a moment where there is no answer
//! yet. That is right where each question costs a packet, but here it costs tens of kilobytes: on a network without name
//! servers a hundred of them wait at once. The resolver below repeats its packets by itself, so that nothing is lost if
//! the same question is asked once.
//!
//! What it saves, measured with iroh 1.4: a process of `gst-launch-1.0` with one `irohlivesink`, on a network whose name
//! server does not answer, has 50 MB in memory after 5 s and 52 MB after 35 s; without this file 64 MB and 65 to 69 MB.
//! Where packets to it are refused at once, it is 1 MB. This belongs into iroh: once its
//! resolver does so by itself, the file can go.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use iroh::dns::{BoxIter, DnsError, DnsResolver, Resolver, TxtRecordData};
use n0_error::{AnyError, e};

/// How long a query may take that is asked for again and again. Each of those who ask has a shorter limit of its own.
const TIMEOUT: Duration = Duration::from_secs(10);

/// iroh's resolver with the operating system's name servers, and those of the public as a fallback.
pub(crate) fn resolver() -> DnsResolver {
    DnsResolver::custom(OneQuery::new(DnsResolver::new()))
}

/// Puts questions to another resolver, one at a time for each name and kind of record.
#[derive(Debug, Clone)]
struct OneQuery {
    below: DnsResolver,
    ipv4: Pending<Ipv4Addr>,
    ipv6: Pending<Ipv6Addr>,
    txt: Pending<TxtRecordData>,
}

impl OneQuery {
    fn new(below: DnsResolver) -> Self {
        Self {
            below,
            ipv4: Pending::default(),
            ipv6: Pending::default(),
            txt: Pending::default(),
        }
    }
}

impl Resolver for OneQuery {
    fn lookup_ipv4(&self, host: String) -> BoxFuture<'static, Result<BoxIter<Ipv4Addr>, DnsError>> {
        let (below, name) = (self.below.clone(), host.clone());
        self.ipv4.ask(host, async move {
            let found = below.lookup_ipv4(name, TIMEOUT).await?;
            Ok(found
                .filter_map(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                })
                .collect())
        })
    }

    fn lookup_ipv6(&self, host: String) -> BoxFuture<'static, Result<BoxIter<Ipv6Addr>, DnsError>> {
        let (below, name) = (self.below.clone(), host.clone());
        self.ipv6.ask(host, async move {
            let found = below.lookup_ipv6(name, TIMEOUT).await?;
            Ok(found
                .filter_map(|address| match address {
                    IpAddr::V6(address) => Some(address),
                    IpAddr::V4(_) => None,
                })
                .collect())
        })
    }

    fn lookup_txt(
        &self,
        host: String,
    ) -> BoxFuture<'static, Result<BoxIter<TxtRecordData>, DnsError>> {
        let (below, name) = (self.below.clone(), host.clone());
        self.txt.ask(host, async move {
            Ok(below.lookup_txt(name, TIMEOUT).await?.collect())
        })
    }

    fn clear_cache(&self) {
        self.below.clear_cache();
    }

    fn reset(&self) -> Box<dyn Resolver> {
        // Puts what is under way to the new name servers, too.
        self.below.reset();
        Box::new(self.clone())
    }
}

type Answer<T> = Result<Vec<T>, Arc<DnsError>>;
type Query<T> = BoxFuture<'static, Answer<T>>;

/// The queries for one kind of record that are under way. They end when nobody waits for them any more.
#[derive(Debug, Clone)]
struct Pending<T>(Arc<Mutex<HashMap<String, WeakShared<Query<T>>>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Pending<T> {
    fn ask(
        &self,
        host: String,
        query: impl Future<Output = Result<Vec<T>, DnsError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<BoxIter<T>, DnsError>> {
        let answer = self.join(host, query);
        async move {
            let records = answer.await.map_err(|error| copy(&error))?;
            Ok(Box::new(records.into_iter()) as BoxIter<T>)
        }
        .boxed()
    }

    fn join(
        &self,
        host: String,
        query: impl Future<Output = Result<Vec<T>, DnsError>> + Send + 'static,
    ) -> Shared<Query<T>> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(query) = pending.get(&host).and_then(WeakShared::upgrade) {
            return query;
        }
        pending.retain(|_, query| query.upgrade().is_some());
        let query = query
            .map(|answer| answer.map_err(Arc::new))
            .boxed()
            .shared();
        if let Some(weak) = query.downgrade() {
            pending.insert(host, weak);
        }
        query
    }
}

/// The same error once more. What callers tell apart stays as it is.
fn copy(error: &DnsError) -> DnsError {
    match error {
        DnsError::Timeout { .. } => e!(DnsError::Timeout),
        DnsError::NoResponse { .. } => e!(DnsError::NoResponse),
        DnsError::NxDomain { .. } => e!(DnsError::NxDomain),
        DnsError::InvalidResponse { .. } => e!(DnsError::InvalidResponse),
        error => e!(DnsError::Resolve, AnyError::from_string(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;

    use super::*;

    /// Answers when it is told to; counts the questions, and those that are not answered yet.
    #[derive(Debug, Clone)]
    struct Slow {
        asked: Arc<AtomicUsize>,
        waiting: Arc<()>,
        open: watch::Receiver<bool>,
    }

    impl Slow {
        fn answer<T: Send + 'static>(
            &self,
            answer: Result<T, DnsError>,
        ) -> BoxFuture<'static, Result<BoxIter<T>, DnsError>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let (mut open, waiting) = (self.open.clone(), self.waiting.clone());
            async move {
                let _waiting = waiting;
                let _ = open.wait_for(|open| *open).await;
                answer.map(|record| Box::new(std::iter::once(record)) as BoxIter<T>)
            }
            .boxed()
        }
    }

    impl Resolver for Slow {
        fn lookup_ipv4(
            &self,
            host: String,
        ) -> BoxFuture<'static, Result<BoxIter<Ipv4Addr>, DnsError>> {
            self.answer(match host.as_str() {
                "nowhere" => Err(e!(DnsError::NxDomain)),
                _ => Ok(Ipv4Addr::LOCALHOST),
            })
        }
        fn lookup_ipv6(
            &self,
            _: String,
        ) -> BoxFuture<'static, Result<BoxIter<Ipv6Addr>, DnsError>> {
            self.answer(Ok(Ipv6Addr::LOCALHOST))
        }
        fn lookup_txt(
            &self,
            _: String,
        ) -> BoxFuture<'static, Result<BoxIter<TxtRecordData>, DnsError>> {
            self.answer(Err(e!(DnsError::NoResponse)))
        }
        fn clear_cache(&self) {}
        fn reset(&self) -> Box<dyn Resolver> {
            Box::new(self.clone())
        }
    }

    fn slow() -> (watch::Sender<bool>, Slow, OneQuery) {
        let (sender, open) = watch::channel(false);
        let slow = Slow {
            asked: Arc::default(),
            waiting: Arc::default(),
            open,
        };
        let resolver = OneQuery::new(DnsResolver::custom(slow.clone()));
        (sender, slow, resolver)
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once_and_answered_to_all() {
        let (open, slow, resolver) = slow();
        let mut waiting: Vec<_> = (0..20)
            .flat_map(|_| {
                [
                    resolver.lookup_ipv4("a".into()),
                    resolver.lookup_ipv4("b".into()),
                ]
            })
            .collect();
        for lookup in &mut waiting {
            assert!(lookup.now_or_never().is_none());
        }
        assert_eq!(slow.asked.load(Ordering::SeqCst), 2);
        open.send_replace(true);
        for lookup in waiting {
            assert_eq!(
                lookup.await.unwrap().collect::<Vec<_>>(),
                [Ipv4Addr::LOCALHOST]
            );
        }
        // It is over: who asks now gets a new answer.
        assert_eq!(resolver.lookup_ipv4("a".into()).await.unwrap().count(), 1);
        assert_eq!(slow.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn kinds_of_records_are_kept_apart_and_errors_stay_what_they_are() {
        let (open, slow, resolver) = slow();
        open.send_replace(true);
        let all = tokio::join!(
            resolver.lookup_ipv4("nowhere".into()),
            resolver.lookup_ipv4("nowhere".into()),
            resolver.lookup_ipv6("nowhere".into()),
            resolver.lookup_txt("nowhere".into()),
        );
        assert!(matches!(all.0, Err(DnsError::NxDomain { .. })));
        assert!(matches!(all.1, Err(DnsError::NxDomain { .. })));
        assert_eq!(all.2.unwrap().collect::<Vec<_>>(), [Ipv6Addr::LOCALHOST]);
        assert!(matches!(all.3, Err(DnsError::NoResponse { .. })));
        assert!(slow.asked.load(Ordering::SeqCst) <= 4);
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_ends() {
        let (_open, slow, resolver) = slow();
        let (mut first, mut second) = (
            resolver.lookup_ipv4("a".into()),
            resolver.lookup_ipv4("a".into()),
        );
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let held = Arc::strong_count(&slow.waiting);
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(Arc::strong_count(&slow.waiting), held);
        drop(second);
        assert_eq!(Arc::strong_count(&slow.waiting), held - 1);
    }
}
