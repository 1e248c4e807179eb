//! Translation and publication: everything at once, and after one change.

use std::sync::Arc;

use floodway::settings::RouteDefaults;
use floodway::snapshot::{self, Snapshot};
use floodway::translate::{Context, Key, Translator};

use crate::measure::{Report, shown, time};
use crate::samples::{ENDPOINTS, resources, route, slice};

pub(crate) fn context() -> Context {
    Context {
        class_name: floodway::api::DEFAULT_CLASS.to_owned(),
        zone: None,
        defaults: RouteDefaults::default(),
        policy: Default::default(),
        shared_limits: true,
        default_certificate: None,
        client_certificates: None,
        https_port: 443,
        roots: Default::default(),
        key_hosts: Default::default(),
    }
}

pub(crate) fn run(report: &mut Report) {
    report.table(
        &format!("Translate and publish, {ENDPOINTS} endpoints behind each route"),
        &["Routes", "Everything", "Nothing changed", "One endpoint changed", "One route changed"],
    );
    for count in [10, 1_000, 10_000] {
        let mut resources = resources(count);
        let (publisher, _reader) = snapshot::channel();
        let all = time(|| publisher.publish(Translator::new(context()).translate(&resources).snapshot));

        let mut translator = Translator::new(context());
        publisher.publish(Snapshot::default());
        publisher.publish(translator.translate(&resources).snapshot);
        let nothing = time(|| publisher.publish(translator.translate(&resources).snapshot));

        let middle = count / 2;
        let key = Key::new("shop", format!("app-{middle}"));
        let mut generation = 0_u8;
        let endpoint = time(|| {
            generation = generation.wrapping_add(1) % 100;
            resources.put_slice(key.clone(), format!("app-{middle}-x1").into(), Arc::new(slice(middle, generation)));
            assert!(publisher.publish(translator.translate(&resources).snapshot));
        });

        let one_route = time(|| {
            generation = generation.wrapping_add(1) % 100;
            let mut changed = route(middle);
            changed.spec.rules[0].matches[0].path.as_mut().unwrap().value = format!("/v{generation}");
            resources.routes.insert(key.clone(), Arc::new(changed.into()));
            assert!(publisher.publish(translator.translate(&resources).snapshot));
        });
        let count = count.to_string();
        report.row(&[&count, &shown(all), &shown(nothing), &shown(endpoint), &shown(one_route)]);
    }
}
