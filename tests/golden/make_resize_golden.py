#!/usr/bin/python3
"""Writes resize_golden.txt: Pillow's bilinear resize of a formula-made picture, as FNV-1a hashes.

Line: width height new_width new_height hash. The picture is the same formula in tests/unit/test_resize.c."""
import os

from PIL import Image

SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (16, 16), (17, 31), (64, 64), (100, 75), (224, 224), (225, 223),
         (255, 257), (320, 240), (333, 500), (640, 480), (875, 656), (1800, 1200)]
TARGETS = [(1, 1), (2, 3), (31, 17), (64, 64), (224, 224), (300, 300)]


def picture(width, height):
    data = bytearray()
    for y in range(height):
        for x in range(width):
            for c in range(3):
                v = (x * 2654435761 + y * 2246822519 + c * 3266489917) & 0xFFFFFFFF
                v = ((v ^ (v >> 15)) * 2246822519) & 0xFFFFFFFF
                noise = (v >> 24) & 0xFF
                edge = 255 if (x // 8 + y // 5 + c) % 2 else 0
                data.append((noise + edge + (x * (c + 1) + y) % 256) // 3)
    return Image.frombytes("RGB", (width, height), bytes(data))


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resize_golden.txt")
    with open(path, "w", encoding="ascii") as out:
        for size in SIZES:
            image = picture(*size)
            extra = [(size[0], 50), (50, size[1]), size]
            for target in TARGETS + extra:
                resized = image.resize(target, Image.Resampling.BILINEAR)
                out.write("%d %d %d %d %016x\n" % (*size, *target, fnv1a(resized.tobytes())))


if __name__ == "__main__":
    main()
