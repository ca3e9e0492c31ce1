//! The book, in reading order.
//!
//! | page | what it is about |
//! | --- | --- |
//! | [`getting_started`] | a first program, what it answers, and the words of this crate |
//! | [`adopting`] | an axum and an actix service get an asynchronous mode, step by step |
//! | [`http`] | what clients see: every answer, field, member and problem |
//! | [`client`] | how the client sends, follows, takes up again and reads offline |
//! | [`other_frameworks`] | what to wire, shown with plain hyper; and without the facade |
//! | [`stores`] | which store, and its settings |
//! | [`operating`] | workers, health, metrics, alerts, a runbook, settings and bounds, sizing |
//! | [`security`] | what a stranger can send, read and make grow |
//! | [`amqp`], [`patterns`] | messages, and five ways to answer from them |
//! | [`webhooks`] | calls of a client's own URL |
//! | [`comparison`] | engines, queues and protocols beside it |
//! | [`architecture`] | why it is built as it is, and what was not chosen |
//! | [`benchmarks`] | what it costs |
//! | [`testing`], [`contributing`] | how to change it |
//! | [`api`] | the five commonest needs, and every public name |

// A page of `docs`. Links between pages are written for the repository and defined at the end of each page. What
// is defined here comes first, and so wins: in this documentation they lead from module to module.
macro_rules! page {
    ($(#[$attribute:meta])* $page:ident = $file:literal) => {
        $(#[$attribute])*
        #[doc = "[adopting.md]: crate::guide::adopting"]
        #[doc = "[adopting.md#2-survive]: crate::guide::adopting#2-survive"]
        #[doc = "[adopting.md#3-own-and-repeat]: crate::guide::adopting#3-own-and-repeat"]
        #[doc = "[adopting.md#stop]: crate::guide::adopting#stop"]
        #[doc = "[amqp.md]: crate::guide::amqp"]
        #[doc = "[amqp.md#events]: crate::guide::amqp#events"]
        #[doc = "[api.md#every-name]: crate::guide::api#every-name"]
        #[doc = "[architecture.md#layers]: crate::guide::architecture#layers"]
        #[doc = "[benchmarks.md]: crate::guide::benchmarks"]
        #[doc = "[benchmarks.md#a-gateway-over-rabbitmq]: crate::guide::benchmarks#a-gateway-over-rabbitmq"]
        #[doc = "[client.md]: crate::guide::client"]
        #[doc = "[comparison.md#protocols]: crate::guide::comparison#protocols"]
        #[doc = "[contributing.md#add-a-profile]: crate::guide::contributing#add-a-profile"]
        #[doc = "[contributing.md#add-a-store]: crate::guide::contributing#add-a-store"]
        #[doc = "[getting-started.md#the-words]: crate::guide::getting_started#the-words"]
        #[doc = "[http.md]: crate::guide::http"]
        #[doc = "[operating.md#back-up-and-restore]: crate::guide::operating#back-up-and-restore"]
        #[doc = "[operating.md#dead-messages]: crate::guide::operating#dead-messages"]
        #[doc = "[operating.md#messages-amqp]: crate::guide::operating#messages-amqp"]
        #[doc = "[operating.md#metrics]: crate::guide::operating#metrics"]
        #[doc = "[operating.md#the-client-client]: crate::guide::operating#the-client-client"]
        #[doc = "[operating.md#settings-and-bounds]: crate::guide::operating#settings-and-bounds"]
        #[doc = "[operating.md#stopping]: crate::guide::operating#stopping"]
        #[doc = "[other-frameworks.md]: crate::guide::other_frameworks"]
        #[doc = "[patterns.md]: crate::guide::patterns"]
        #[doc = "[stores.md]: crate::guide::stores"]
        #[doc = "[testing.md]: crate::guide::testing"]
        #[doc = "[testing.md#a-store-of-your-own]: crate::guide::testing#a-store-of-your-own"]
        #[doc = "[testing.md#where-a-test-belongs]: crate::guide::testing#where-a-test-belongs"]
        #[doc = "[webhooks.md]: crate::guide::webhooks"]
        #[doc = "[webhooks.md#what-may-be-called]: crate::guide::webhooks#what-may-be-called"]
        #[doc = ""]
        #[doc = include_str!($file)]
        pub mod $page {}
    };
}

page! {
    #[cfg(any(not(doctest), feature = "axum"))]
    getting_started = "../docs/getting-started.md"
}
page! {
    #[cfg(any(not(doctest), feature = "full"))]
    adopting = "../docs/adopting.md"
}
page! { http = "../docs/http.md" }
page! {
    #[cfg(any(not(doctest), all(feature = "http-body", feature = "tokio")))]
    other_frameworks = "../docs/other-frameworks.md"
}
page! {
    #[cfg(any(not(doctest), feature = "client-cache"))]
    client = "../docs/client.md"
}
page! { stores = "../docs/stores.md" }
page! {
    #[cfg(any(not(doctest), all(feature = "postgres", feature = "tokio")))]
    operating = "../docs/operating.md"
}
page! { security = "../docs/security.md" }
page! { amqp = "../docs/amqp.md" }
page! { patterns = "../docs/patterns.md" }
page! {
    #[cfg(any(not(doctest), feature = "webhook"))]
    webhooks = "../docs/webhooks.md"
}
page! { comparison = "../docs/comparison.md" }
page! { architecture = "../docs/architecture.md" }
page! { benchmarks = "../docs/benchmarks.md" }
page! { testing = "../docs/testing.md" }
page! {
    #[cfg(any(not(doctest), feature = "tokio"))]
    contributing = "../docs/contributing.md"
}
page! {
    #[cfg(any(not(doctest), feature = "full"))]
    api = "../docs/api.md"
}
