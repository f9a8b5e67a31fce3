//! Where sources push: a ring for each type of item.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    container::Report,
    image::ImageEvent,
    sink::{Bell, Pushed, Sink},
};

/// Where sources push. Cheap to clone.
#[derive(Clone)]
pub struct Sinks {
    pub containers: Sink<Report>,
    pub images: Sink<ImageEvent>,
    others: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
    bell: Bell,
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sinks").field("containers", &self.containers).field("images", &self.images).finish_non_exhaustive()
    }
}

impl Sinks {
    /// Rings that ring `bell`.
    pub fn new(bell: Bell) -> Self {
        let images = Sink::new(ImageEvent::RING, bell.clone());
        let others: HashMap<TypeId, Box<dyn Any + Send>> = HashMap::from([(TypeId::of::<ImageEvent>(), Box::new(images.clone()) as _)]);
        Self { containers: Sink::new(Report::RING, bell.clone()), images, others: Arc::new(Mutex::new(others)), bell }
    }

    /// The ring for items of that type; made when it is first asked for, by whoever drains it or by whoever pushes.
    pub fn of<T: Pushed>(&self) -> Sink<T> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = others.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(Sink::<T>::new(T::RING, self.bell.clone())));
        ring.downcast_ref::<Sink<T>>().expect("it was put there under its own type").clone()
    }
}
