//! Properties that cannot be.

use std::net::UdpSocket;

use iroh_live_tests::{secret_key, start, ticket_of};

use super::{says, sink_failure, source_failure};

#[test]
fn no_ticket() {
    let _test = start();
    for ticket in [None, Some(""), Some("  ")] {
        let error = source_failure(ticket, "");
        says(
            &error,
            gst::ResourceError::NotFound,
            &["No ticket", "set the property ticket", "iroh-live:"],
        );
    }
}

#[test]
fn a_ticket_that_is_none() {
    let _test = start();
    let good = ticket_of(&secret_key(1), 4433);
    let (start, name) = good.rsplit_once('/').expect("there is a name");
    let cases = [
        (good[..30].to_owned(), "cut short"),
        (good[..4].to_owned(), "cut short"),
        (start.to_owned(), "no name"),
        (good.replacen("iroh-live:", "iroh-live:!", 1), "mistyped"),
        (format!("{}AAAA/{name}", start), "too many"),
        (
            "https://example.com/watch".to_owned(),
            "`https:` is not a ticket",
        ),
        ("what is this".to_owned(), "not a ticket"),
        (format!("{good}{}", "x".repeat(3000)), "too long"),
        (format!("{good}?relay=nonsense"), "relay"),
    ];
    for (ticket, part) in cases {
        let error = source_failure(Some(&ticket), "");
        says(
            &error,
            gst::ResourceError::NotFound,
            &["The ticket cannot be read", part],
        );
    }
}

#[test]
fn a_malformed_secret_key() {
    let _test = start();
    let ticket = ticket_of(&secret_key(1), 4433);
    for key in [
        "abc",
        "zz",
        &secret_key(3)[1..],
        "correct-horse-battery-staple",
    ] {
        for error in [
            sink_failure(&format!("secret-key={key}")),
            source_failure(Some(&ticket), &format!("secret-key={key}")),
        ] {
            says(
                &error,
                gst::ResourceError::Settings,
                &["secret-key", "64 hexadecimal digits"],
            );
            // It may be a good one with a slip of the pen.
            assert!(
                key.len() < 4 || !error.message().contains(key),
                "the key is shown: {error}"
            );
        }
    }
}

#[test]
fn a_key_file_that_cannot_be_read() {
    let test = start();
    let folder = test.file("folder");
    std::fs::create_dir(&folder).expect("the test's folder can be written");
    let error = sink_failure(&format!("secret-key-location={folder}"));
    says(
        &error,
        gst::ResourceError::Read,
        &[&folder, "name a file that this program can read and write"],
    );
    let error = sink_failure(&format!("secret-key-location={folder}/none/key"));
    says(
        &error,
        gst::ResourceError::Read,
        &["none/key", "name a file"],
    );
    // A file that has something else in it.
    let file = test.file("notes");
    std::fs::write(&file, "milk, bread").expect("the test's folder can be written");
    let error = sink_failure(&format!("secret-key-location={file}"));
    says(
        &error,
        gst::ResourceError::Settings,
        &[&file, "64 hexadecimal digits"],
    );
}

#[test]
fn a_name_that_fits_no_ticket() {
    let _test = start();
    let error = sink_failure(&format!("broadcast={}", "x".repeat(3000)));
    says(
        &error,
        gst::ResourceError::Settings,
        &["too long", "Set the property broadcast to another name"],
    );
}

#[test]
fn a_port_that_is_taken() {
    let _test = start();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("there are free ports");
    let address = taken.local_addr().expect("it is bound");
    let ticket = ticket_of(&secret_key(1), 4433);
    let bind = format!("bind-address={address}");
    for (error, code) in [
        (sink_failure(&bind), gst::ResourceError::OpenWrite),
        (
            source_failure(Some(&ticket), &bind),
            gst::ResourceError::OpenRead,
        ),
    ] {
        says(
            &error,
            code,
            &[&address.to_string(), "Choose another bind-address"],
        );
    }
    for nonsense in ["localhost", "127.0.0.1", "1.2.3.4:99999"] {
        let error = sink_failure(&format!("bind-address={nonsense}"));
        says(
            &error,
            gst::ResourceError::Settings,
            &["bind-address", nonsense, "4433"],
        );
    }
}

#[test]
fn malformed_relay_urls() {
    let _test = start();
    let error = sink_failure("relay-urls=https://");
    says(
        &error,
        gst::ResourceError::Settings,
        &["relay-urls", "https://relay.example.com"],
    );
    let error = sink_failure("relay-urls=https://good.example.com,nonsense");
    says(
        &error,
        gst::ResourceError::Settings,
        &["relay-urls", "nonsense"],
    );
    let error = sink_failure("relay-mode=custom");
    says(
        &error,
        gst::ResourceError::Settings,
        &["relay-mode=custom needs relay-urls"],
    );
}

#[test]
fn a_ticket_location_that_cannot_be_written() {
    let test = start();
    let location = test.file("none/ticket");
    let error = sink_failure(&format!("ticket-location={location}"));
    says(
        &error,
        gst::ResourceError::OpenWrite,
        &[&location, "Set ticket-location"],
    );
}

#[test]
fn a_broadcast_name_that_cannot_be_one() {
    let _test = start();
    for name in ["*", "x".repeat(3000).as_str()] {
        let error = sink_failure(&format!("broadcast={name}"));
        says(
            &error,
            gst::ResourceError::Settings,
            &["Set the property broadcast to another name"],
        );
    }
}
