//! Stores answer like a model that is as simple as can be, whatever they are asked.

mod store_model;

use std::future::ready;

use respond_async::store::MemoryStore;

#[test]
fn the_memory_store_answers_like_its_model() {
    store_model::answers_like_its_model(
        1_000,
        |clock| ready(MemoryStore::builder().clock(clock).build()),
        |store| Some(store.len()),
    );
}
