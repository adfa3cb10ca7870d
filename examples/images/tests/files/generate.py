"""Makes the images of this folder, with Pillow: `python3 generate.py`, in this folder.

Each shows the same: left half red, right half blue, a green square at the top left corner.
"""

import struct
import zlib

from PIL import Image, ImageDraw

WIDTH, HEIGHT, CORNER = 48, 32, 12
RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 200, 30)


def pixel(x, y):
    if x < CORNER and y < CORNER:
        return GREEN
    return RED if x < WIDTH // 2 else BLUE


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path, depth, kind, interlaced, rows):
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


image = Image.new("RGB", (WIDTH, HEIGHT), RED)
draw = ImageDraw.Draw(image)
draw.rectangle([WIDTH // 2, 0, WIDTH, HEIGHT], fill=BLUE)
draw.rectangle([0, 0, CORNER - 1, CORNER - 1], fill=GREEN)

image.convert("CMYK").save("cmyk.jpg", quality=90)
image.save("progressive.jpg", progressive=True, quality=90)
image.save("subsampled_420.jpg", subsampling=2, quality=85)
image.convert("L").save("grey.jpg", quality=90)

# What is stored is turned so that the upright image is the same.
T = Image.Transpose
TURNED = [None, T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_90, T.TRANSVERSE, T.ROTATE_270]
for orientation, turn in enumerate(TURNED, start=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image if turn is None else image.transpose(turn)
    stored.save(f"exif_{orientation}.jpg", exif=exif, quality=90)
    # Pillow writes the mark "Exif" into WebP files, too; other programs do not.
    stored.save(f"exif_{orientation}.webp", exif=exif, lossless=True)
    stored.save(f"exif_{orientation}.png", exif=exif)

image.save("plain.png")
image.quantize(8).save("palette.png")
image.convert("1").save("one_bit.png")
grey = b"".join((65535 * x // (WIDTH - 1)).to_bytes(2, "little") for _ in range(HEIGHT) for x in range(WIDTH))
Image.frombytes("I;16", (WIDTH, HEIGHT), grey).save("grey_16_bit.png")
write_png(
    "colour_16_bit.png", 16, 6, 0,
    (b"".join(struct.pack(">HHHH", *(c * 257 for c in pixel(x, y)), 65535) for x in range(WIDTH)) for y in range(HEIGHT)),
)
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
write_png(
    "interlaced.png", 8, 2, 1,
    (bytes(c for x in range(x0, WIDTH, dx) for c in pixel(x, y)) for x0, y0, dx, dy in ADAM7 for y in range(y0, HEIGHT, dy)),
)

# The right half of the upper half is transparent.
transparent = image.convert("RGBA")
for x in range(WIDTH // 2, WIDTH):
    for y in range(HEIGHT // 2):
        transparent.putpixel((x, y), (0, 0, 0, 0))
transparent.save("transparent.png")
transparent.save("transparent_lossless.webp", lossless=True)
image.save("lossy.webp", quality=80)

# The second frame is turned over.
frames = {"save_all": True, "append_images": [image.transpose(T.FLIP_LEFT_RIGHT)], "duration": 100}
image.save("animated.gif", **frames)
image.save("animated.webp", lossless=True, **frames)
image.save("animated.png", **frames)

image.save("bitmap.bmp")
image.save("tiff.tif")
