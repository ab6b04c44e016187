#!/usr/bin/python3
"""Writes images/* (small pictures in many variants) and image_golden.txt: what Pillow's convert("RGB") makes of each.

Line: file width height hash, or: file error. The hash is FNV-1a over the RGB bytes."""
import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "images")
W, H = 29, 19


def base(width=W, height=H):
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([(x * 9 + y * 3) % 256, (x * y + 40) % 256, (255 - x * 5 - y * 4) % 256], -1).astype(np.uint8)
    return Image.fromarray(rgb, "RGB")


def with_alpha(image):
    y, x = np.mgrid[0 : image.size[1], 0 : image.size[0]]
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(((x * 11 + y * 7) % 256).astype(np.uint8), "L"))
    return image


def wide_grey(mode):
    y, x = np.mgrid[0:H, 0:W]
    values = x * 23 + y * 17 - 40
    if mode == "F":
        return Image.fromarray(values.astype(np.float32) * 0.7, "F")
    if mode == "I;16":
        return Image.fromarray(np.abs(values).astype(np.uint16), "I;16")
    return Image.fromarray(values.astype(np.int32), "I")


def save(name, image, **options):
    image.save(os.path.join(OUT, name), **options)


def put(name, data):
    with open(os.path.join(OUT, name), "wb") as out:
        out.write(data)


def png(width, height, bits, color_type, rows, extra=b"", interlace=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace))
            + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def png_all_types():
    palette = bytes((i * 37 + c * 91) % 256 for i in range(10) for c in range(3))
    plte = struct.pack(">I", len(palette)) + b"PLTE" + palette + struct.pack(">I", zlib.crc32(b"PLTE" + palette))
    for color_type, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 2, 4, 8)), (4, 2, (8, 16)),
                                         (6, 4, (8, 16))):
        for bits in depths:
            row_bytes = (W * channels * bits + 7) // 8
            rows = b"".join(b"\0" + bytes((r * 31 + i * 7) % 256 for i in range(row_bytes)) for r in range(H))
            put("png_type%d_%d.png" % (color_type, bits), png(W, H, bits, color_type, rows, plte if color_type == 3 else b""))


def jpegs():
    image = base(67, 45)
    save("jpeg_444.jpg", image, quality=90, subsampling=0)
    save("jpeg_422.jpg", image, quality=80, subsampling=1)
    save("jpeg_420.jpg", image, quality=75, subsampling=2)
    save("jpeg_progressive.jpg", image, quality=75, progressive=True)
    save("jpeg_grey.jpg", image.convert("L"), quality=75)
    save("jpeg_cmyk.jpg", image.convert("CMYK"), quality=85)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("jpeg_exif_rotated.jpg", image, quality=75, exif=exif)
    with open(os.path.join(OUT, "jpeg_420.jpg"), "rb") as f:
        data = f.read()
    put("bad_truncated.jpg", data[: len(data) * 2 // 3])
    put("bad_header.jpg", data[:40])
    # the same inks announced as YCCK by an Adobe marker
    with open(os.path.join(OUT, "jpeg_cmyk.jpg"), "rb") as f:
        data = bytearray(f.read())
    at = data.index(b"Adobe")
    data[at + 11] = 2
    put("jpeg_ycck.jpg", bytes(data))


def bmps():
    save("bmp_24.bmp", base())
    save("bmp_32.bmp", with_alpha(base()))
    save("bmp_grey.bmp", base().convert("L"))
    save("bmp_1.bmp", base().convert("1"))
    save("bmp_palette.bmp", base().quantize(60))
    image = base()
    size = struct.pack("<IIHHIIIIII", W, 2**32 - H, 1, 24, 0, 0, 0, 0, 0, 0)
    rows = b"".join(image.tobytes("raw", "BGR")[r * W * 3 : (r + 1) * W * 3].ljust((W * 3 + 3) // 4 * 4, b"\0") for r in range(H))
    put("bmp_top_down.bmp", b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + struct.pack("<I", 40) + size + rows)
    for name, masks, bits in (("565", (0xF800, 0x7E0, 0x1F), 16), ("555", None, 16), ("xbgr", (0xFF000000, 0xFF0000, 0xFF00), 32)):
        stride = (W * bits // 8 + 3) // 4 * 4
        rows = bytes((i * 29 + i // 7) % 256 for i in range(stride * H))
        extra = struct.pack("<III", *masks) if masks else b""
        info = struct.pack("<IIIHHIIIIII", 40, W, H, 1, bits, 3 if masks else 0, 0, 0, 0, 0, 0)
        put("bmp_%s.bmp" % name, b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(extra)) + info + extra + rows)
    palette = bytes((i * 17 + c * 50) % 256 for i in range(16) for c in range(4))
    info = struct.pack("<IIIHHIIIIII", 40, 10, 3, 1, 8, 1, 0, 0, 0, 16, 0)
    runs = bytes([4, 3, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 10, 7, 0, 0, 3, 1, 0, 3, 9, 8, 7, 0, 4, 2, 0, 1])
    put("bmp_rle8.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 64) + info + palette + runs)
    info = struct.pack("<IIIHHIIIIII", 40, 10, 2, 1, 4, 2, 0, 0, 0, 16, 0)
    runs = bytes([10, 0x3A, 0, 0, 4, 0x12, 0, 6, 0x45, 0x67, 0x89, 0, 0, 1])
    put("bmp_rle4.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 64) + info + palette + runs)
    core = struct.pack("<IHHHH", 12, W, H, 1, 24)
    rows = bytes((i * 13) % 256 for i in range((W * 3 + 3) // 4 * 4 * H))
    put("bmp_core.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + core + rows)
    with open(os.path.join(OUT, "bmp_24.bmp"), "rb") as f:
        data = f.read()
    put("bad_truncated.bmp", data[:-100])


def gifs():
    save("gif_palette.gif", base().quantize(40))
    save("gif_interlaced.gif", base().quantize(40), interlace=1)
    save("gif_grey.gif", base().convert("L"))
    frames = [base().quantize(16), base().rotate(180).quantize(16)]
    save("gif_animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    save("gif_transparent.gif", base().quantize(16), transparency=3)
    with open(os.path.join(OUT, "gif_transparent.gif"), "rb") as f:
        data = bytearray(f.read())
    data[6:10] = struct.pack("<HH", W + 6, H + 9)  # a canvas larger than the frame
    put("gif_canvas.gif", bytes(data))
    data[6:10] = struct.pack("<HH", 3, 3)  # and smaller
    put("gif_small_canvas.gif", bytes(data))
    with open(os.path.join(OUT, "gif_palette.gif"), "rb") as f:
        data = f.read()
    put("bad_truncated.gif", data[: len(data) // 2])


def tiffs():
    save("tiff_rgb.tif", base())
    save("tiff_rgba.tif", with_alpha(base()), compression="tiff_lzw")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        save("tiff_%s.tif" % compression, base(), compression=compression)
    save("tiff_jpeg.tif", base(64, 48), compression="jpeg", quality=80)
    save("tiff_grey.tif", base().convert("L"))
    save("tiff_bits.tif", base().convert("1"), compression="group4")
    save("tiff_palette.tif", base().quantize(50))
    save("tiff_cmyk.tif", base().convert("CMYK"), compression="tiff_lzw")
    save("tiff_16.tif", wide_grey("I;16"))
    save("tiff_32.tif", wide_grey("I"), compression="tiff_lzw")
    save("tiff_float.tif", wide_grey("F"))
    save("tiff_grey_alpha.tif", with_alpha(base()).convert("LA"))
    for orientation in range(2, 9):
        save("tiff_orientation%d.tif" % orientation, base(7, 4), tiffinfo={0x0112: orientation})
    with open(os.path.join(OUT, "tiff_rgb.tif"), "rb") as f:
        data = f.read()
    put("bad_truncated.tif", data[:60])


def pnms():
    save("pnm_p6.ppm", base())
    save("pnm_p5.pgm", base().convert("L"))
    save("pnm_p4.pbm", base().convert("1"))
    put("pnm_p5_16.pgm", b"P5\n# a comment\n5 3\n65535\n" + struct.pack(">15H", *[i * 31 for i in range(15)]))
    put("pnm_p5_max100.pgm", b"P5 5 3 100\n" + bytes(range(86, 101)))
    put("pnm_p6_max1000.ppm", b"P6 2 2 1000\n" + struct.pack(">12H", *[i * 90 for i in range(12)]))
    put("pnm_p1.pbm", b"P1\n4 2\n1 0 1 1\n0110\n")
    put("pnm_p2.pgm", b"P2 3 2 15\n0 3 6 # six\n9 12 15\n")
    put("pnm_p2_wide.pgm", b"P2 3 1 1000\n0 1 500\n")
    put("pnm_p3.ppm", b"P3\n2 1\n255\n1 2 3 254 255 0\n")
    put("bad_truncated.ppm", b"P6 5 5 255\n0123456789")


def webps():
    save("webp_lossy.webp", base(), quality=70)
    save("webp_lossless.webp", with_alpha(base()), lossless=True)
    save("webp_alpha.webp", with_alpha(base()), quality=60)
    save("webp_animated.webp", base(), save_all=True, append_images=[base().rotate(180)], duration=50)
    with open(os.path.join(OUT, "webp_lossy.webp"), "rb") as f:
        data = f.read()
    put("bad_truncated.webp", data[: len(data) // 2])


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    os.makedirs(OUT, exist_ok=True)
    for make in (jpegs, png_all_types, bmps, gifs, tiffs, pnms, webps):
        make()
    save("png_interlaced.png", base())
    with open(os.path.join(OUT, "png_type2_8.png"), "rb") as f:
        data = f.read()
    put("bad_truncated.png", data[: len(data) // 2])
    put("bad_text.jpg", b"this is no picture\n")
    put("bad_empty.png", b"")
    with open(os.path.join(HERE, "image_golden.txt"), "w", encoding="ascii") as out:
        for name in sorted(os.listdir(OUT)):
            try:
                image = Image.open(os.path.join(OUT, name)).convert("RGB")
                out.write("%s %d %d %016x\n" % (name, *image.size, fnv1a(image.tobytes())))
            except Exception as error:  # whatever Pillow raises: the picture is bad
                print(name, type(error).__name__, error)
                out.write("%s error\n" % name)


if __name__ == "__main__":
    main()
