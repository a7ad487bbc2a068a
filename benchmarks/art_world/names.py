"""The words of the art world: subjects, styles and backgrounds, and which split each belongs to.

A subject is an emoji, by its name in Noto Emoji. A style is a set by one hand, or an exact restyling of one.
"""

from __future__ import annotations

from benchmarks.words import SPLITS, Entry, Split, labels

__all__ = ["BACKGROUNDS", "CONTENTS", "NAMELESS", "SPLITS", "STYLES", "Entry", "Split", "labels"]

_KNOWN = """
airplane alarm-clock alien alien-monster ambulance anchor ant articulated-lorry artist-palette automobile baby-bottle
baby-chick backpack balloon banana bathtub battery beer-mug bell bento-box bicycle birthday-cake blowfish bomb bread
briefcase broken-heart bug bus camel camera candle candy carousel-horse carp-streamer cherries cherry-blossom chestnut
chicken christmas-tree church circus-tent classical-building closed-book closed-umbrella cloud cocktail-glass
construction cookie couch-and-lamp cow-face crescent-moon crocodile crystal-ball dagger dango deciduous-tree dolphin
door doughnut dress ear ear-of-corn eggplant elephant envelope evergreen-tree factory ferris-wheel fire fire-engine
fish flashlight floppy-disk fountain four-leaf-clover french-fries frog fuel-pump game-die gem-stone ghost glasses
grapes hammer hamster handbag headphone helicopter hibiscus high-heeled-shoe honeybee hot-pepper hourglass-not-done
house-with-garden jack-o-lantern japanese-castle jeans key kimono koala lady-beetle laptop lemon light-bulb lipstick
locked locomotive lollipop maple-leaf meat-on-bone microphone microscope moai money-bag mount-fuji movie-camera
musical-keyboard necktie panda package palm-tree party-popper peach pear pencil pig-face pill pizza poultry-leg
rabbit-face rainbow red-apple red-heart rice-ball ring rose roller-coaster running-shoe saxophone scissors seedling
shortcake skull snowflake snowman-without-snow soccer-ball spaghetti spouting-whale star sun sunflower sushi t-shirt
tangerine telephone television tennis tiger-face toilet tokyo-tower tomato top-hat tractor tram trophy tropical-drink
tropical-fish trumpet tulip vertical-traffic-light video-game violin volcano watch water-wave watermelon wine-glass
wolf wrapped-gift
"""
_NOVEL = {
    "dev": "crown guitar mushroom pineapple rooster sailboat snail umbrella-with-rain-drops",
    "test": "cactus castle hamburger ice-cream octopus penguin rocket strawberry",
}


def _entries(known: str, novel: dict[Split, str], token: str) -> tuple[Entry, ...]:
    """Known entries by their own name as one word, novel ones by a rare token, which the base model never read."""
    strange: list[tuple[Split, str]] = [(split, looks) for split, names in novel.items() for looks in names.split()]
    return (
        *(Entry(name.replace("-", "_"), "known", name) for name in known.split()),
        *(Entry(f"{token}{place}", split, looks) for place, (split, looks) in enumerate(strange, 1)),
    )


CONTENTS = _entries(_KNOWN, {"dev": _NOVEL["dev"], "test": _NOVEL["test"]}, "sks")
STYLES = _entries(
    "flat clay ink neon mosaic duotone woodcut glass", {"dev": "chalk gold", "test": "comic blueprint"}, "zwx"
)
BACKGROUNDS = {
    "white": (255, 255, 255),
    "butter": (255, 232, 138),
    "sky": (166, 216, 255),
    "mint": (184, 236, 205),
    "pink": (255, 199, 214),
    "night": (38, 42, 82),
}
"""Plain colours behind drawings whose style has no ground of its own."""

NAMELESS = """
basketball baseball bouquet bowling chocolate-bar cooking curry-rice delivery-truck desert-island desktop-computer
droplet eye film-projector fishing-pole footprints framed-picture fried-shrimp glowing-star green-apple herb
high-voltage honey-pot hot-beverage japanese-dolls leopard magnifying-glass-tilted-left melon monkey mouse-face
nut-and-bolt ox paintbrush pine-decoration police-car pool-8-ball postbox radio ram red-paper-lantern rice-cracker
satellite-antenna sheaf-of-rice ship shower slot-machine snake soft-ice-cream speedboat steaming-bowl sunglasses
syringe taxi telescope tent tornado two-hump-camel wastebasket wind-chime wrench american-football aerial-tramway
statue-of-liberty cat dog horse pig rat tiger
"""
"""Subjects without a word, for the base model to know more of drawings than it has words for."""
