"""What comes from outside is looked at before any work starts: captions, vocabulary, model, images.

Each raises an InputError: one sentence that names the file, line or field.
"""

from tasks.backbone.loading import check_named, check_weights
from tasks.captions.paired import check_paired
from tasks.corpus.ingest import check_captions as check_file
from tasks.corpus.sources import caption_files
from tasks.images.draw import check_protocol
from tasks.images.image_sets import check_shown, read_listing
from tasks.images.names import Names
from tasks.labels.vocabulary import Vocabulary, load_vocabulary, vocabulary_path
from tasks.methods.needs import check_needs
from tasks.profile import Profile
from tasks.results.store import check_store
from tasks.workspace import check_home
from tasks.world.files import make_world


def check_captions(profile: Profile) -> Vocabulary:
    """Look at the vocabulary and every caption file."""
    check_home()
    profile = make_world.fn(profile)
    vocabulary = load_vocabulary(vocabulary_path(profile))
    for source, path in caption_files(profile):
        check_file(source, path)
    return vocabulary


def check_model(profile: Profile) -> None:
    """Look at the frozen CLIP's name and weights."""
    check_weights(profile.backbone.model, profile.backbone.pretrained)


def check(profile: Profile) -> Vocabulary:
    """Look at everything that a run reads, and at where it writes."""
    vocabulary = check_input(profile)
    check_store()
    return vocabulary


def check_input(profile: Profile) -> Vocabulary:
    """Look at everything that a run reads."""
    check_home()
    check_named(profile.backbone.model, profile.backbone.pretrained)
    check_needs(profile)
    profile = make_world.fn(profile)
    listings = [(each, read_listing(profile, each)) for each in profile.image_sets]
    vocabulary = check_captions(profile)
    for image_set, listing in listings:
        check_shown(image_set, Names(vocabulary).match(listing.entries), vocabulary)
    check_protocol(profile, vocabulary)
    check_paired(profile)
    # last: weights that are new here are opened, or fetched
    check_model(profile)
    return vocabulary
